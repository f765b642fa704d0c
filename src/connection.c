#include "connection.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ascii.h"

/* Bytes of requests that libcurl has sent, those to a proxy included. */
static long request_bytes(const osb_connection *connection)
{
    long bytes = 0;

    return curl_easy_getinfo(connection->easy, CURLINFO_REQUEST_SIZE, &bytes) == CURLE_OK ? bytes : 0;
}

/* The status with which a proxy has answered a CONNECT request, or 0. */
static long connect_status(const osb_connection *connection)
{
    long status = 0;

    return curl_easy_getinfo(connection->easy, CURLINFO_HTTP_CONNECTCODE, &status) == CURLE_OK ? status : 0;
}

static int port_of(const struct curl_sockaddr *address)
{
    if (address->family == AF_INET)
        return ntohs(((const struct sockaddr_in *)(const void *)&address->addr)->sin_port);
    if (address->family == AF_INET6)
        return ntohs(((const struct sockaddr_in6 *)(const void *)&address->addr)->sin6_port);
    return 0;
}

/* libcurl opens its sockets without CLOEXEC; a child of the host must not hold them open. */
static curl_socket_t on_open_socket(void *argument, curlsocktype purpose, struct curl_sockaddr *address)
{
    osb_connection *connection = argument;
    int fd;

    (void)purpose;
    if (request_bytes(connection) > 0 && connect_status(connection) == 0) /* a connection that was used again has broken */
        connection->sent_before = 1;
    connection->connect_port = port_of(address);
#ifdef SOCK_CLOEXEC
    fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
#else
    fd = socket(address->family, address->socktype, address->protocol);
    if (fd >= 0)
        fcntl(fd, F_SETFD, FD_CLOEXEC);
#endif
    connection->socket_error = fd < 0 ? errno : 0;
    return fd;
}

#if LIBCURL_VERSION_NUM >= 0x075000
/*
 * Called before the request is sent. Newer versions of libcurl reuse a connection without checking it when it was idle for a
 * moment only. If the server has closed it meanwhile, the request would be lost, and some requests must not be sent twice.
 */
static int on_prerequest(void *argument, char *address, char *local_address, int port, int local_port)
{
    osb_connection *connection = argument;
    curl_socket_t fd = CURL_SOCKET_BAD;
    struct pollfd idle;
    long connects = 1;

    (void)address;
    (void)local_address;
    (void)port;
    (void)local_port;
    if (curl_easy_getinfo(connection->easy, CURLINFO_NUM_CONNECTS, &connects) != CURLE_OK || connects > 0
        || curl_easy_getinfo(connection->easy, CURLINFO_ACTIVESOCKET, &fd) != CURLE_OK || fd == CURL_SOCKET_BAD)
        return CURL_PREREQFUNC_OK;
    idle.fd = fd;
    idle.events = POLLIN;
    connection->is_stale = poll(&idle, 1, 0) > 0; /* no bytes are expected on an idle connection: it is the end, or as bad */
    return connection->is_stale ? CURL_PREREQFUNC_ABORT : CURL_PREREQFUNC_OK;
}
#endif

void osb_connection_init(osb_connection *connection, const char *url, int has_tunnel)
{
    memset(connection, 0, sizeof *connection);
    connection->is_https = strlen(url) >= 6 && osb_ascii_equal(url, "https:", 6);
    connection->has_tunnel = has_tunnel;
}

CURLcode osb_connection_watch(osb_connection *connection, CURL *easy)
{
    CURLcode code = curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, on_open_socket);

    connection->easy = easy;
    if (!code)
        code = curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, (void *)connection);
#if LIBCURL_VERSION_NUM >= 0x075000
    if (!code)
        code = curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, on_prerequest);
    if (!code)
        code = curl_easy_setopt(easy, CURLOPT_PREREQDATA, (void *)connection);
#endif
    return code;
}

/* Facts about the connection, after libcurl has used it. */

/* The port in the URL, or 0. */
static int url_port(const osb_connection *connection)
{
    CURLU *url = curl_url();
    char *text = NULL;
    int port = 0;

    if (url && curl_easy_getinfo(connection->easy, CURLINFO_EFFECTIVE_URL, &text) == CURLE_OK && text
        && curl_url_set(url, CURLUPART_URL, text, 0) == CURLUE_OK) {
        text = NULL;
        if (curl_url_get(url, CURLUPART_PORT, &text, CURLU_DEFAULT_PORT) == CURLUE_OK)
            port = atoi(text);
        curl_free(text);
    }
    curl_url_cleanup(url);
    return port;
}

/* Returns 1 when the address that could not be connected to is that of a proxy, because a proxy of the environment is easily forgotten. */
static int is_proxy(const osb_connection *connection)
{
#if LIBCURL_VERSION_NUM >= 0x080700
    long is_used = 0;

    if (curl_easy_getinfo(connection->easy, CURLINFO_USED_PROXY, &is_used) == CURLE_OK)
        return is_used != 0;
#endif
    return connection->connect_port > 0 && connection->connect_port != url_port(connection);
}

/* Returns 1 when the bytes that were sent over a new connection are those of a CONNECT request, and not of the request. */
static int is_only_connect(const osb_connection *connection)
{
    curl_off_t handshake = 0;
    long status = connect_status(connection);

    if (connection->is_https) /* nothing but that comes before the TLS handshake */
        return curl_easy_getinfo(connection->easy, CURLINFO_APPCONNECT_TIME_T, &handshake) == CURLE_OK && handshake == 0;
    return connection->has_tunnel && (status != 0 ? status < 200 || status >= 300 : is_proxy(connection));
}

int osb_connection_sent(const osb_connection *connection)
{
    long connects = 0;

    if (connection->sent_before || request_bytes(connection) == 0)
        return connection->sent_before;
    if (curl_easy_getinfo(connection->easy, CURLINFO_NUM_CONNECTS, &connects) != CURLE_OK || connects == 0)
        return 1;
    return !is_only_connect(connection);
}

int osb_connection_was_stale(osb_connection *connection)
{
    int was_stale = connection->is_stale;

    connection->is_stale = 0;
    return was_stale;
}

/* Returns 1 when this process or the system has hardly a descriptor left. */
static int is_out_of_descriptors(void)
{
    enum { NEEDED = 3 }; /* a lookup needs that many at once */
    int fds[NEEDED], count = 0, is_out;

    while (count < NEEDED && (fds[count] = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0)) >= 0)
        ++count;
    is_out = count < NEEDED && (errno == EMFILE || errno == ENFILE);
    while (count > 0)
        close(fds[--count]);
    return is_out;
}

osb_outcome osb_connection_outcome(const osb_connection *connection, CURLcode code)
{
    osb_outcome outcome = osb_outcome_of(code);
    int error = connection->socket_error;

    if (!connection->easy)
        return outcome;
    switch (outcome) {
    case OSB_RECEIVE_FAILED:
        return connect_status(connection) >= 300 && !osb_connection_sent(connection) ? OSB_PROXY_FAILED : outcome;
    case OSB_RESOLVE_FAILED:
    case OSB_CONNECT_FAILED:
    case OSB_TLS_FAILED:
    case OSB_NO_MEMORY:
        if (error == EMFILE || error == ENFILE || is_out_of_descriptors())
            return OSB_NO_DESCRIPTORS;
        return outcome == OSB_CONNECT_FAILED && is_proxy(connection) ? OSB_PROXY_FAILED : outcome;
    default:
        return outcome;
    }
}
