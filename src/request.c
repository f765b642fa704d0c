#include "request.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "alloc.h"
#include "clock.h"

enum {
    CONNECTION_MAX_AGE = 4,          /* seconds: the servers close idle connections after 5 (uvicorn's default) to 30 */
    UPLOAD_BUFFER_SIZE = 512 * 1024, /* bytes */
    MAX_CONNECT_TIMEOUT = 86400      /* seconds: libcurl takes 0 for its own default */
};

#define SET(option, value)                                        \
    do {                                                          \
        CURLcode set_code = curl_easy_setopt(easy, option, value); \
        if (set_code)                                             \
            return set_code;                                      \
    } while (0)
#define SET_STRING(option, value) \
    do {                          \
        if (value)                \
            SET(option, value);   \
    } while (0)
/* For options that a version of libcurl, or its TLS library, may not have. */
#define SET_IF_KNOWN(option, value)                                                                         \
    do {                                                                                                    \
        CURLcode set_code = curl_easy_setopt(easy, option, value);                                           \
        if (set_code && set_code != CURLE_UNKNOWN_OPTION && set_code != CURLE_NOT_BUILT_IN)                  \
            return set_code;                                                                                \
    } while (0)

CURLcode osb_request_body(const osb_request *request, osb_body *body)
{
    int failed = 0;

    if (request->part_count > 0)
        failed = osb_body_set_parts(body, request->boundary, request->parts, request->part_count, request->may_repeat);
    else if (request->body)
        failed = osb_body_set(body, request->body, request->body_length, request->may_repeat);
    else if (strcmp(request->method, "POST") == 0)
        failed = osb_body_set(body, "", 0, request->may_repeat);
    return failed == -2 ? CURLE_READ_ERROR : failed ? CURLE_OUT_OF_MEMORY : CURLE_OK;
}

static CURLcode set_protocol(CURL *easy)
{
#if LIBCURL_VERSION_NUM >= 0x075500
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
#else
    SET(CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_FOLLOWLOCATION, 0L); /* our headers hold keys, so they are sent to the server of the URL only */
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(CURLOPT_MAXAGE_CONN, (long)CONNECTION_MAX_AGE);
    SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L); /* the headers of a proxy are no part of the response */
#if LIBCURL_VERSION_NUM >= 0x075700
    SET_IF_KNOWN(CURLOPT_QUICK_EXIT, 1L); /* a thread that looks up a name is left behind, not waited for */
#endif
    return CURLE_OK;
}

static const char *environment(const char *name)
{
    const char *value = getenv(name);

    return value && *value ? value : NULL;
}

/* The variables mean what they mean to OpenSSL and to the curl tool. */
static CURLcode set_ca_of_environment(CURL *easy)
{
    const char *bundle = environment("CURL_CA_BUNDLE");
    const char *file = bundle ? bundle : environment("SSL_CERT_FILE");
    const char *directory = bundle ? NULL : environment("SSL_CERT_DIR");

    if (file) {
        SET(CURLOPT_CAINFO, file);
        SET_IF_KNOWN(CURLOPT_PROXY_CAINFO, file);
    }
    if (directory) {
        SET_IF_KNOWN(CURLOPT_CAPATH, directory);
        SET_IF_KNOWN(CURLOPT_PROXY_CAPATH, directory);
    }
    return CURLE_OK;
}

static CURLcode set_tls(CURL *easy, const osb_request *request)
{
    CURLcode code = request->ca_file || request->ca_directory ? CURLE_OK : set_ca_of_environment(easy);

    if (code)
        return code;
    SET_STRING(CURLOPT_CAINFO, request->ca_file);
    SET_STRING(CURLOPT_CAPATH, request->ca_directory);
    SET_STRING(CURLOPT_SSLCERT, request->certificate);
    SET_STRING(CURLOPT_SSLKEY, request->key);
    SET_STRING(CURLOPT_KEYPASSWD, request->key_password);
    if (request->insecure) {
        SET(CURLOPT_SSL_VERIFYPEER, 0L);
        SET(CURLOPT_SSL_VERIFYHOST, 0L);
    }
    return CURLE_OK;
}

/*
 * Before 7.73, libcurl checks only once a second whether servers have closed idle connections, and may send a request over such a
 * connection. The library that runs can be another version than the headers.
 */
static int checks_connection_before_reuse(void)
{
    return curl_version_info(CURLVERSION_NOW)->version_num >= 0x074900;
}

static CURLcode set_body(CURL *easy, const osb_body *body)
{
    SET(CURLOPT_POST, 1L);
    SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body->size);
    /* A body without bytes cannot refuse to be rewound: only over a fresh connection libcurl never sends a request twice. */
    if (!body->may_repeat && (body->size == 0 || !checks_connection_before_reuse()))
        SET(CURLOPT_FRESH_CONNECT, 1L);
    return CURLE_OK;
}

/* Adds a line to the list. In it, "Name:" stands for no such header. */
static CURLcode add_line(struct curl_slist **headers, const char *line)
{
    struct curl_slist *list = curl_slist_append(*headers, line);

    if (!list)
        return CURLE_OUT_OF_MEMORY;
    *headers = list;
    return CURLE_OK;
}

static CURLcode add_header(struct curl_slist **headers, const char *header)
{
    size_t name = strcspn(header, ":");
    CURLcode code;
    char *line;

    if (header[name] == '\0' || header[name + 1 + strspn(header + name + 1, " \t")] != '\0')
        return add_line(headers, header);
    line = osb_strdup(header); /* "Name;" stands for an empty value */
    if (!line)
        return CURLE_OUT_OF_MEMORY;
    line[name] = ';';
    line[name + 1] = '\0';
    code = add_line(headers, line);
    osb_free(line);
    return code;
}

/*
 * A request that switches to WebSocket is an upload without end, whose bytes are the frames: libcurl then moves them both ways like
 * the bodies of any request. The headers without a value remove libcurl's own, so that the frames are sent unchanged.
 */
static CURLcode set_websocket(CURL *easy)
{
    SET(CURLOPT_POST, 1L);
    SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)-1);
    SET(CURLOPT_FRESH_CONNECT, 1L);
    SET(CURLOPT_FORBID_REUSE, 1L);
    SET(CURLOPT_HTTPPROXYTUNNEL, 1L); /* without a tunnel, an HTTP proxy forwards nothing but HTTP */
    return CURLE_OK;
}

static CURLcode add_websocket_headers(struct curl_slist **headers, const char *key)
{
    static const char *const fixed[] = {
        "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Transfer-Encoding:", "Content-Length:",
        "Content-Type:"
    };
    char key_header[sizeof "Sec-WebSocket-Key: " + OSB_WS_KEY_LENGTH];
    CURLcode code = CURLE_OK;
    size_t i;

    for (i = 0; i < sizeof fixed / sizeof fixed[0] && !code; ++i)
        code = add_line(headers, fixed[i]);
    snprintf(key_header, sizeof key_header, "Sec-WebSocket-Key: %s", key);
    return code ? code : add_line(headers, key_header);
}

static CURLcode set_headers(CURL *easy, const osb_request *request, const osb_body *body, const char *websocket_key,
                            struct curl_slist **headers)
{
    CURLcode code = CURLE_OK;
    size_t i;

    for (i = 0; i < request->header_count && !code; ++i)
        code = add_header(headers, request->headers[i]);
    if (!code)
        code = add_line(headers, "Expect:"); /* waiting for "100 Continue" costs a second with servers that do not send it */
    if (!code && body->size < 0)
        code = add_line(headers, "Transfer-Encoding: chunked");
    if (!code && websocket_key)
        code = add_websocket_headers(headers, websocket_key);
    return code ? code : curl_easy_setopt(easy, CURLOPT_HTTPHEADER, *headers);
}

CURLcode osb_request_set_up(const osb_request *request, CURL *easy, const osb_body *body, const char *websocket_key,
                            struct curl_slist **headers)
{
    CURLcode code = set_protocol(easy);

    if (!code)
        code = set_tls(easy, request);
    if (code)
        return code;
    SET(CURLOPT_URL, request->url);
    SET(CURLOPT_PATH_AS_IS, 1L);
    SET_STRING(CURLOPT_PROXY, request->proxy);
    SET(CURLOPT_CONNECTTIMEOUT_MS,
        (long)osb_milliseconds(request->connect_timeout > 0 ? request->connect_timeout : MAX_CONNECT_TIMEOUT));
    if (request->receive_buffer > 0)
        SET(CURLOPT_BUFFERSIZE, request->receive_buffer);
    if (request->part_count > 0)
        SET(CURLOPT_UPLOAD_BUFFERSIZE, (long)UPLOAD_BUFFER_SIZE);
    if (websocket_key)
        code = set_websocket(easy);
    else if (body->segments)
        code = set_body(easy, body);
    else
        SET(CURLOPT_HTTPGET, 1L);
    if (!code)
        code = set_headers(easy, request, body, websocket_key, headers);
    if (code)
        return code;
    if (strcmp(request->method, "HEAD") == 0)
        SET(CURLOPT_NOBODY, 1L);
    SET(CURLOPT_CUSTOMREQUEST, request->method);
    return CURLE_OK;
}
