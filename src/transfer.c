#include "transfer.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "clock.h"
#include "sigpipe.h"

enum {
    CONNECTION_MAX_AGE = 4,    /* seconds: the servers close idle connections after 5 (uvicorn's default) to 30 */
    LARGEST_HEAD = 1024 * 1024 /* bytes */
};

static const char *const outcome_names[] = {
    "running", "complete", "resolve_failed", "connect_failed", "tls_failed", "connect_timeout", "timeout", "idle_timeout",
    "send_failed", "receive_failed", "bad_response", "body_failed", "sink_failed", "closed", "forked", "no_memory", "failed"
};

const char *osb_outcome_name(osb_outcome outcome)
{
    return outcome_names[outcome];
}

/* The list of transfers with news. */

static void note_change(osb_transfer *transfer)
{
    osb_multi *multi = transfer->multi;

    if (transfer->changed || transfer->in_background)
        return;
    transfer->changed = 1;
    transfer->changed_next = multi->changed;
    if (transfer->changed_next)
        transfer->changed_next->changed_previous = transfer;
    multi->changed = transfer;
}

void osb_transfer_forget_change(osb_transfer *transfer)
{
    if (!transfer->changed)
        return;
    transfer->changed = 0;
    if (transfer->changed_previous)
        transfer->changed_previous->changed_next = transfer->changed_next;
    else
        transfer->multi->changed = transfer->changed_next;
    if (transfer->changed_next)
        transfer->changed_next->changed_previous = transfer->changed_previous;
    transfer->changed_next = transfer->changed_previous = NULL;
}

/* libcurl's callbacks: they move bytes and note what happened, no more. */

static size_t on_header(char *bytes, size_t size, size_t count, void *argument)
{
    osb_transfer *transfer = argument;
    size_t length = size * count;

    transfer->last_activity = transfer->multi->now;
    if (transfer->head_complete) /* trailers of a chunked body */
        return length;
    if (length >= 5 && memcmp(bytes, "HTTP/", 5) == 0) /* of an interim response came before, if anything */
        osb_buffer_consume(&transfer->head, osb_buffer_size(&transfer->head));
    if (osb_buffer_size(&transfer->head) + length > LARGEST_HEAD
        || osb_buffer_append(&transfer->head, bytes, length))
        return 0;
    if (bytes[0] == '\r' || bytes[0] == '\n') {
        long status = 0;
        curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &status);
        if (status >= 200) {
            transfer->status = status;
            transfer->head_complete = 1;
            note_change(transfer);
            if (transfer->sink.path && status < 300 && osb_sink_open(&transfer->sink))
                return 0;
        }
    }
    return length;
}

static int holds(const osb_transfer *transfer, size_t mark)
{
    /* A frame longer than the mark must still arrive: where frames are read, only a queue with a whole line counts. */
    return osb_buffer_size(&transfer->response.input) >= mark && (!transfer->framed || transfer->response.line_waiting);
}

static size_t on_body(char *bytes, size_t size, size_t count, void *argument)
{
    osb_transfer *transfer = argument;
    size_t length = size * count;

    transfer->last_activity = transfer->multi->now;
    if (transfer->in_background)
        return length;
    if (transfer->sink.fd >= 0) {
        if (osb_sink_write(&transfer->sink, bytes, length))
            return 0;
        transfer->received += (double)length;
        note_change(transfer);
        return length;
    }
    if (holds(transfer, transfer->high_water)) {
        transfer->receive_paused = 1;
        return CURL_WRITEFUNC_PAUSE;
    }
    if (osb_frames_feed(&transfer->response, bytes, length))
        return 0;
    transfer->received += (double)length;
    note_change(transfer);
    return length;
}

/* libcurl opens its sockets without CLOEXEC; a child of the host must not hold them open. */
static curl_socket_t open_socket(void *argument, curlsocktype purpose, struct curl_sockaddr *address)
{
    (void)argument;
    (void)purpose;
#ifdef SOCK_CLOEXEC
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
#else
    {
        int fd = socket(address->family, address->socktype, address->protocol);
        if (fd >= 0)
            fcntl(fd, F_SETFD, FD_CLOEXEC);
        return fd;
    }
#endif
}

/* Setting up. */

#define SET(option, value)                                                  \
    do {                                                                    \
        CURLcode set_code = curl_easy_setopt(transfer->easy, option, value); \
        if (set_code)                                                       \
            return set_code;                                                \
    } while (0)
#define SET_STRING(option, value) \
    do {                          \
        if (value)                \
            SET(option, value);   \
    } while (0)

static CURLcode set_protocol(osb_transfer *transfer)
{
#if LIBCURL_VERSION_NUM >= 0x075500
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
#else
    SET(CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_FOLLOWLOCATION, 0L); /* our headers hold keys: they go where they were meant to go, and nowhere else */
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(CURLOPT_MAXAGE_CONN, (long)CONNECTION_MAX_AGE);
    SET(CURLOPT_OPENSOCKETFUNCTION, open_socket);
    SET(CURLOPT_PRIVATE, (void *)transfer);
    SET(CURLOPT_ERRORBUFFER, transfer->message);
    SET(CURLOPT_HEADERFUNCTION, on_header);
    SET(CURLOPT_HEADERDATA, (void *)transfer);
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, (void *)transfer);
    return CURLE_OK;
}

static CURLcode set_tls(osb_transfer *transfer, const osb_request *request)
{
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

static int add_header(osb_transfer *transfer, const char *header)
{
    struct curl_slist *list = curl_slist_append(transfer->headers, header);

    if (!list)
        return -1;
    transfer->headers = list;
    return 0;
}

static CURLcode set_headers(osb_transfer *transfer, const osb_request *request)
{
    size_t i;

    for (i = 0; i < request->header_count; ++i) {
        if (add_header(transfer, request->headers[i]))
            return CURLE_OUT_OF_MEMORY;
    }
    /* Waiting for "100 Continue" costs a second with servers that do not send it. */
    if (add_header(transfer, "Expect:") || (transfer->body.size < 0 && add_header(transfer, "Transfer-Encoding: chunked")))
        return CURLE_OUT_OF_MEMORY;
    SET(CURLOPT_HTTPHEADER, transfer->headers);
    return CURLE_OK;
}

static CURLcode set_up(osb_transfer *transfer, const osb_request *request)
{
    CURLcode code = set_protocol(transfer);

    if (!code)
        code = set_tls(transfer, request);
    if (code)
        return code;
    SET(CURLOPT_URL, request->url);
    SET(CURLOPT_PATH_AS_IS, 1L);
    SET_STRING(CURLOPT_PROXY, request->proxy);
    SET(CURLOPT_CONNECTTIMEOUT_MS, request->connect_timeout > 0 ? (long)osb_milliseconds(request->connect_timeout) : 86400000L);
    if (request->receive_buffer > 0)
        SET(CURLOPT_BUFFERSIZE, request->receive_buffer);
    if (request->part_count > 0)
        code = osb_body_set_parts(&transfer->body, transfer->easy, request->boundary, request->parts, request->part_count,
                                  request->may_repeat);
    else if (request->body)
        code = osb_body_set(&transfer->body, transfer->easy, request->body, request->body_length, request->may_repeat);
    else if (strcmp(request->method, "POST") == 0)
        code = osb_body_set(&transfer->body, transfer->easy, "", 0, request->may_repeat);
    else
        SET(CURLOPT_HTTPGET, 1L);
    if (!code)
        code = set_headers(transfer, request);
    if (code)
        return code;
    if (strcmp(request->method, "HEAD") == 0)
        SET(CURLOPT_NOBODY, 1L);
    SET(CURLOPT_CUSTOMREQUEST, request->method);
    return CURLE_OK;
}

static void link_in(osb_transfer *transfer)
{
    osb_multi *multi = transfer->multi;

    transfer->next = multi->running;
    if (transfer->next)
        transfer->next->previous = transfer;
    multi->running = transfer;
    ++multi->count;
    osb_multi_make_room(multi);
}

static void link_out(osb_transfer *transfer)
{
    osb_multi *multi = transfer->multi;

    if (transfer->previous)
        transfer->previous->next = transfer->next;
    else
        multi->running = transfer->next;
    if (transfer->next)
        transfer->next->previous = transfer->previous;
    transfer->next = transfer->previous = NULL;
    --multi->count;
    osb_multi_make_room(multi);
    if (transfer->in_background)
        --multi->background;
}

static void set_message(osb_transfer *transfer, const char *text)
{
    snprintf(transfer->message, sizeof transfer->message, "%s", text);
}

static osb_outcome outcome_of(const osb_transfer *transfer, CURLcode code)
{
    switch (code) {
    case CURLE_OK:
        return OSB_COMPLETE;
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
        return OSB_RESOLVE_FAILED;
    case CURLE_COULDNT_CONNECT:
        return OSB_CONNECT_FAILED;
    case CURLE_OPERATION_TIMEDOUT: /* the only clock of libcurl's that we set */
        return OSB_CONNECT_TIMEOUT;
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_INVALIDCERTSTATUS:
    case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
        return OSB_TLS_FAILED;
    case CURLE_SEND_ERROR:
    case CURLE_SEND_FAIL_REWIND:
        return OSB_SEND_FAILED;
    case CURLE_RECV_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_PARTIAL_FILE:
        return OSB_RECEIVE_FAILED;
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_UNSUPPORTED_PROTOCOL: /* also what an HTTP/0.9 answer gives */
    case CURLE_BAD_CONTENT_ENCODING:
        return OSB_BAD_RESPONSE;
    case CURLE_ABORTED_BY_CALLBACK:
    case CURLE_READ_ERROR:
        return transfer->body.problem[0] ? OSB_BODY_FAILED : OSB_FAILED_OTHERWISE;
    case CURLE_WRITE_ERROR: /* ours: no room for the head or the body */
        return transfer->sink.problem[0] ? OSB_SINK_FAILED : OSB_NO_MEMORY;
    case CURLE_OUT_OF_MEMORY:
        return OSB_NO_MEMORY;
    default:
        return OSB_FAILED_OTHERWISE;
    }
}

osb_transfer *osb_transfer_start(osb_multi *multi, const osb_request *request)
{
    osb_transfer *transfer = calloc(1, sizeof *transfer);
    const char *problem;
    CURLcode code;

    if (!transfer)
        return NULL;
    osb_multi_hold(multi);
    transfer->multi = multi;
    transfer->id = ++multi->last_id;
    osb_frames_init(&transfer->response, request->frame_limit);
    transfer->framed = request->framed;
    transfer->high_water = request->high_water;
    transfer->has_parts = request->part_count > 0;
    transfer->timeout = request->timeout;
    transfer->idle_timeout = request->idle_timeout;
    transfer->started = transfer->last_activity = osb_now();

    if (osb_sink_init(&transfer->sink, request->sink, request->sink_mode)) {
        osb_transfer_end(transfer, OSB_NO_MEMORY, CURLE_OUT_OF_MEMORY);
        return transfer;
    }
    problem = osb_multi_open(multi);
    if (problem) {
        set_message(transfer, problem);
        osb_transfer_end(transfer, multi->closed ? OSB_CLOSED : OSB_FAILED_OTHERWISE, CURLE_FAILED_INIT);
        return transfer;
    }
    transfer->easy = curl_easy_init();
    code = transfer->easy ? set_up(transfer, request) : CURLE_OUT_OF_MEMORY;
    if (!code && curl_multi_add_handle(multi->curl, transfer->easy) != CURLM_OK)
        code = CURLE_FAILED_INIT;
    if (code) {
        if (transfer->body.problem[0])
            set_message(transfer, transfer->body.problem);
        osb_transfer_end(transfer, outcome_of(transfer, code), code);
        return transfer;
    }
    link_in(transfer);
    return transfer;
}

/* Ending. */

int osb_transfer_sent(const osb_transfer *transfer)
{
    long request_size = 0;

    if (!transfer->easy)
        return transfer->request_sent;
    curl_easy_getinfo(transfer->easy, CURLINFO_REQUEST_SIZE, &request_size);
    return request_size > 0;
}

void osb_transfer_end(osb_transfer *transfer, osb_outcome outcome, CURLcode code)
{
    if (transfer->outcome != OSB_RUNNING)
        return;
    transfer->outcome = outcome;
    transfer->code = code;
    if (transfer->easy) {
        long connects = 0;
        osb_sigpipe guard;
        curl_easy_getinfo(transfer->easy, CURLINFO_NUM_CONNECTS, &connects);
        transfer->request_sent = osb_transfer_sent(transfer);
        transfer->reused = transfer->request_sent && connects == 0;
        osb_sigpipe_block(&guard); /* closing a TLS connection says goodbye */
        if (transfer->multi->curl)
            curl_multi_remove_handle(transfer->multi->curl, transfer->easy);
        curl_easy_cleanup(transfer->easy);
        osb_sigpipe_restore(&guard);
        transfer->easy = NULL;
        if (transfer->previous || transfer->multi->running == transfer)
            link_out(transfer);
    }
    curl_slist_free_all(transfer->headers);
    transfer->headers = NULL;
    if (!transfer->message[0])
        set_message(transfer, transfer->body.problem[0] ? transfer->body.problem : curl_easy_strerror(code));
    if (osb_sink_close(&transfer->sink) && outcome == OSB_COMPLETE) {
        transfer->outcome = OSB_SINK_FAILED;
        set_message(transfer, transfer->sink.problem);
    }
    osb_body_free(&transfer->body);
    osb_frames_end(&transfer->response);
    note_change(transfer);
    if (transfer->in_background)
        osb_transfer_free(transfer);
}

void osb_transfer_complete(osb_transfer *transfer, CURLcode code)
{
    if (transfer->body.problem[0])
        set_message(transfer, transfer->body.problem);
    if (transfer->sink.problem[0])
        set_message(transfer, transfer->sink.problem);
    osb_transfer_end(transfer, outcome_of(transfer, code), code);
}

void osb_transfer_abandon(osb_transfer *transfer)
{
    /* In a child after fork: the easy handle's connection is the parent's. Its memory is given up rather than cleaned up. */
    link_out(transfer);
    transfer->easy = NULL;
    transfer->headers = NULL;
    osb_transfer_end(transfer, OSB_FORKED, CURLE_OK);
}

void osb_transfer_free(osb_transfer *transfer)
{
    if (!transfer)
        return;
    osb_transfer_end(transfer, OSB_CLOSED, CURLE_OK);
    osb_transfer_forget_change(transfer);
    osb_body_free(&transfer->body);
    osb_frames_free(&transfer->response);
    osb_buffer_free(&transfer->head);
    osb_sink_free(&transfer->sink);
    osb_multi_release(transfer->multi);
    free(transfer);
}

void osb_transfer_detach(osb_transfer *transfer, double seconds, int must_arrive)
{
    /* Bytes of memory parts belong to the caller, so a body in parts cannot stay behind. */
    if (transfer->outcome != OSB_RUNNING || transfer->has_parts) {
        osb_transfer_free(transfer);
        return;
    }
    osb_transfer_forget_change(transfer);
    transfer->in_background = 1;
    ++transfer->multi->background;
    transfer->must_arrive = must_arrive;
    transfer->timeout = osb_now() - transfer->started + seconds;
    transfer->idle_timeout = 0;
    osb_buffer_free(&transfer->response.input);
}

/* Pausing and clocks. */

static int can_receive(const osb_transfer *transfer)
{
    return transfer->in_background || !holds(transfer, transfer->high_water / 2);
}

int osb_transfer_can_resume(const osb_transfer *transfer)
{
    return (transfer->receive_paused && can_receive(transfer)) || osb_body_can_resume(&transfer->body);
}

void osb_transfer_resume(osb_transfer *transfer)
{
    int receiving = !transfer->receive_paused || can_receive(transfer);
    int sending = !transfer->body.hungry || osb_body_can_resume(&transfer->body);

    transfer->last_activity = transfer->multi->now;
    if (receiving)
        transfer->receive_paused = 0; /* before the call: it may bring bytes, and a new pause */
    if (sending)
        transfer->body.hungry = 0;
    /* A failure here ends the transfer with the same code a moment later. */
    curl_easy_pause(transfer->easy, (receiving ? CURLPAUSE_RECV_CONT : CURLPAUSE_RECV) | (sending ? CURLPAUSE_SEND_CONT : CURLPAUSE_SEND));
}

static int waits_for_the_caller(const osb_transfer *transfer)
{
    return transfer->receive_paused || transfer->body.hungry;
}

double osb_transfer_next_clock(const osb_transfer *transfer)
{
    double next = -1;

    if (transfer->timeout > 0)
        next = transfer->started + transfer->timeout;
    if (transfer->idle_timeout > 0 && !waits_for_the_caller(transfer)) {
        double idle = transfer->last_activity + transfer->idle_timeout;
        if (next < 0 || idle < next)
            next = idle;
    }
    return next;
}

void osb_transfer_check_clocks(osb_transfer *transfer)
{
    double now = transfer->multi->now;

    if (transfer->body.touched) {
        transfer->body.touched = 0;
        transfer->last_activity = now;
        if (transfer->has_parts) /* its owner may have bytes for it, and may count those that went */
            note_change(transfer);
    }
    if (transfer->timeout > 0 && now >= transfer->started + transfer->timeout)
        osb_transfer_end(transfer, OSB_TIMEOUT, CURLE_OPERATION_TIMEDOUT);
    else if (transfer->idle_timeout > 0 && !waits_for_the_caller(transfer)
        && now >= transfer->last_activity + transfer->idle_timeout)
        osb_transfer_end(transfer, OSB_IDLE_TIMEOUT, CURLE_OPERATION_TIMEDOUT);
}
