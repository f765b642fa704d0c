#include "transfer_internal.h"

#include <stdio.h>

#include "alloc.h"
#include "clock.h"

static const char NO_RESPONSE[] = "the connection ended before the response";
static const char CUT_SHORT[] = "the connection ended without a close frame";

/* libcurl's callbacks: they move bytes and note what happened, no more. */

static void mark_changed(osb_transfer *transfer)
{
    osb_transfer_set_mark(&transfer->multi->set, &transfer->member, OSB_CHANGED);
}

/* Returns what libcurl expects for `length` bytes that were passed to the response. */
static size_t received(osb_transfer *transfer, osb_received result, size_t length)
{
    transfer->last_activity = transfer->multi->now;
    switch (result) {
    case OSB_RECEIVE_PAUSED:
        return CURL_WRITEFUNC_PAUSE;
    case OSB_RECEIVE_REFUSED:
        transfer->failure = OSB_BAD_RESPONSE;
        return 0;
    case OSB_RECEIVE_NO_MEMORY:
        transfer->failure = OSB_NO_MEMORY;
        return 0;
    case OSB_RECEIVE_SINK_FAILED:
        transfer->failure = OSB_SINK_FAILED;
        return 0;
    default:
        return length;
    }
}

static int is_open_websocket(const osb_transfer *transfer)
{
    return transfer->websocket && transfer->websocket->open;
}

/* Handles the complete head of the response to a request for a WebSocket. Returns -1 when it accepts another handshake than ours. */
static int answer_websocket(osb_transfer *transfer)
{
    osb_buffer *head = &transfer->response.head;
    const char *problem;

    if (transfer->response.status == 101) {
        problem = osb_websocket_open(transfer->websocket, osb_buffer_bytes(head), osb_buffer_size(head), transfer->multi->now);
        if (problem) {
            transfer->failure = OSB_WEBSOCKET_VIOLATION;
            transfer->failure_message = problem;
            transfer->response.status = 0; /* so that it is not taken for an open connection */
            return -1;
        }
        transfer->deadline = -1; /* it limited the time until this response */
        osb_transfer_update_clock(transfer);
    }
    osb_transfer_check_pause(transfer);
    return 0;
}

static size_t on_header(char *line, size_t size, size_t count, void *argument)
{
    osb_transfer *transfer = argument;
    osb_received result = osb_response_header(&transfer->response, line, size * count);

    if (result == OSB_RECEIVED_HEAD) {
        mark_changed(transfer);
        if (transfer->websocket && answer_websocket(transfer))
            return 0;
    }
    return received(transfer, result, size * count);
}

/* Bytes of a WebSocket that is open. */
static osb_received receive_frames(osb_transfer *transfer, const char *bytes, size_t length)
{
    osb_websocket *websocket = transfer->websocket;
    osb_websocket_result result = osb_websocket_receive(websocket, bytes, length, transfer->multi->now);

    osb_transfer_check_pause(transfer); /* the answer to a ping or to a close frame may have to be sent */
    if (websocket->close_sent)
        osb_transfer_update_clock(transfer);
    if (result == OSB_WEBSOCKET_NEWS)
        mark_changed(transfer);
    if (result == OSB_WEBSOCKET_FULL)
        return OSB_RECEIVE_PAUSED;
    return result == OSB_WEBSOCKET_NO_MEMORY ? OSB_RECEIVE_NO_MEMORY : OSB_RECEIVED;
}

static size_t on_body(char *bytes, size_t size, size_t count, void *argument)
{
    osb_transfer *transfer = argument;
    osb_received result;

    if (is_open_websocket(transfer))
        return received(transfer, receive_frames(transfer, bytes, size * count), size * count);
    result = osb_response_body(&transfer->response, bytes, size * count);
    if (result == OSB_RECEIVED)
        mark_changed(transfer);
    return received(transfer, result, size * count);
}

/* Before the response nothing is sent. After a refusal the upload ends, so that libcurl ends the transfer. */
static size_t read_frames(osb_transfer *transfer, char *into, size_t length)
{
    int news;
    size_t got = osb_websocket_take(transfer->websocket, into, length, &news);

    if (news)
        mark_changed(transfer);
    if (got > 0 || (transfer->response.status && !transfer->websocket->open))
        return got;
    osb_transfer_check_pause(transfer);
    osb_transfer_set_mark(&transfer->multi->set, &transfer->member, OSB_QUIET); /* the connection may have ended before */
    return CURL_READFUNC_PAUSE;
}

static size_t on_read(char *into, size_t size, size_t count, void *argument)
{
    osb_transfer *transfer = argument;
    long got;

    transfer->last_activity = transfer->multi->now;
    if (transfer->websocket)
        return read_frames(transfer, into, size * count);
    got = osb_body_read(&transfer->body, into, size * count);
    if (transfer->has_parts) /* its owner may have bytes for it, and may count those that were sent */
        mark_changed(transfer);
    if (got == OSB_BODY_AGAIN)
        return CURL_READFUNC_PAUSE;
    if (got == OSB_BODY_ERROR) {
        transfer->failure = OSB_BODY_FAILED;
        return CURL_READFUNC_ABORT;
    }
    return (size_t)got;
}

/*
 * libcurl repeats a request by itself when a reused connection breaks before the first byte of the response, and rewinds the body
 * for that. A command must not run twice: rewinding fails then, and so does the transfer.
 */
static int on_seek(void *argument, curl_off_t offset, int origin)
{
    osb_transfer *transfer = argument;

    if (origin != SEEK_SET || offset != 0)
        return CURL_SEEKFUNC_CANTSEEK;
    return osb_body_rewind(&transfer->body) ? CURL_SEEKFUNC_FAIL : CURL_SEEKFUNC_OK;
}

/* Starting. */

#define SET(option, value)                                                  \
    do {                                                                    \
        CURLcode set_code = curl_easy_setopt(transfer->easy, option, value); \
        if (set_code)                                                       \
            return set_code;                                                \
    } while (0)

static CURLcode set_callbacks(osb_transfer *transfer)
{
    SET(CURLOPT_PRIVATE, (void *)&transfer->member);
    SET(CURLOPT_ERRORBUFFER, transfer->message);
    SET(CURLOPT_HEADERFUNCTION, on_header);
    SET(CURLOPT_HEADERDATA, (void *)transfer);
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, (void *)transfer);
    SET(CURLOPT_READFUNCTION, on_read);
    SET(CURLOPT_READDATA, (void *)transfer);
    SET(CURLOPT_SEEKFUNCTION, on_seek);
    SET(CURLOPT_SEEKDATA, (void *)transfer);
    return osb_connection_watch(&transfer->connection, transfer->easy);
}

static CURLcode set_up_websocket(osb_transfer *transfer, const osb_websocket_options *options)
{
    transfer->websocket = osb_calloc(1, sizeof *transfer->websocket);
    if (!transfer->websocket)
        return CURLE_OUT_OF_MEMORY;
    transfer->response.may_switch = 1;
    return osb_websocket_init(transfer->websocket, options) ? CURLE_FAILED_INIT : CURLE_OK;
}

static CURLcode run(osb_transfer *transfer, const osb_request *request)
{
    osb_multi *multi = transfer->multi;
    CURLcode code;

    code = request->websocket ? set_up_websocket(transfer, request->websocket) : osb_request_body(request, &transfer->body);
    if (code == CURLE_READ_ERROR)
        transfer->failure = OSB_BODY_FAILED;
    if (code)
        return code;
    transfer->easy = curl_easy_init();
    if (!transfer->easy)
        return CURLE_OUT_OF_MEMORY;
    code = set_callbacks(transfer);
    if (!code)
        code = osb_request_set_up(request, transfer->easy, &transfer->body, transfer->websocket ? transfer->websocket->key : NULL,
                                  &transfer->headers);
    if (!code && osb_transfer_set_add(&multi->set, &transfer->member))
        code = CURLE_OUT_OF_MEMORY;
    if (code)
        return code;
    transfer->shard = osb_multi_start(multi, transfer->easy);
    if (!transfer->shard)
        return CURLE_OUT_OF_MEMORY;
    osb_transfer_update_clock(transfer);
    return CURLE_OK;
}

osb_transfer *osb_transfer_start(osb_multi *multi, const osb_request *request)
{
    osb_transfer *transfer = osb_calloc(1, sizeof *transfer);
    osb_outcome problem;
    CURLcode code;

    if (!transfer)
        return NULL;
    osb_multi_hold(multi);
    osb_transfer_set_enrol(&multi->set, &transfer->member);
    transfer->multi = multi;
    transfer->has_parts = request->part_count > 0;
    osb_connection_init(&transfer->connection, request->url);
    multi->now = transfer->last_activity = osb_now();
    transfer->deadline = request->timeout > 0 ? transfer->last_activity + request->timeout : -1;
    transfer->idle_timeout = request->idle_timeout;
    if (osb_response_init(&transfer->response, request->high_water, request->max_event, request->sink, request->sink_mode)) {
        osb_transfer_complete(transfer, CURLE_OUT_OF_MEMORY);
        return transfer;
    }
    problem = osb_multi_open(multi);
    if (problem) {
        osb_transfer_end(transfer, problem, NULL);
        return transfer;
    }
    code = run(transfer, request);
    if (code)
        osb_transfer_complete(transfer, code);
    return transfer;
}

/* Ending. */

int osb_transfer_sent(const osb_transfer *transfer)
{
    return transfer->easy ? osb_connection_sent(&transfer->connection) : transfer->request_sent;
}

/* `text` NULL: the outcome's own message. */
static void set_message(osb_transfer *transfer, osb_outcome outcome, const char *text)
{
    if (!text)
        text = osb_outcome_message(outcome);
    if (text != transfer->message)
        snprintf(transfer->message, sizeof transfer->message, "%s", text);
}

void osb_transfer_end(osb_transfer *transfer, osb_outcome outcome, const char *message)
{
    osb_multi *multi = transfer->multi;

    if (transfer->outcome != OSB_RUNNING)
        return;
    transfer->request_sent = osb_transfer_sent(transfer);
    osb_transfer_set_remove(&multi->set, &transfer->member);
    if (transfer->easy)
        osb_multi_stop(transfer->shard, transfer->easy);
    transfer->easy = NULL;
    transfer->shard = NULL;
    curl_slist_free_all(transfer->headers);
    transfer->headers = NULL;
    set_message(transfer, outcome, message);
    if (osb_response_end(&transfer->response) && outcome == OSB_COMPLETE) {
        outcome = OSB_SINK_FAILED;
        set_message(transfer, outcome, transfer->response.sink.problem);
    }
    transfer->outcome = outcome;
    osb_body_free(&transfer->body);
    mark_changed(transfer);
    if (transfer->member.detached)
        osb_transfer_free(transfer);
}

/* Ends an open WebSocket. `outcome` and `message` apply when the server neither closed it nor violated the protocol. */
static void end_websocket(osb_transfer *transfer, osb_outcome outcome, const char *message)
{
    const osb_websocket *websocket = transfer->websocket;

    if (websocket->failure)
        osb_transfer_end(transfer, websocket->failure == OSB_WS_TOO_LARGE ? OSB_MESSAGE_TOO_LARGE : OSB_WEBSOCKET_VIOLATION,
                         websocket->reader.problem);
    else if (websocket->close_code)
        osb_transfer_end(transfer, OSB_COMPLETE, "it was closed");
    else
        osb_transfer_end(transfer, outcome, message);
}

/* Ends a transfer in whose callback something failed. */
static void end_with_failure(osb_transfer *transfer)
{
    const char *message = transfer->failure_message;

    if (transfer->failure == OSB_BODY_FAILED)
        message = transfer->body.problem;
    else if (transfer->failure == OSB_SINK_FAILED)
        message = transfer->response.sink.problem;
    else if (transfer->failure == OSB_BAD_RESPONSE)
        message = transfer->response.problem;
    osb_transfer_end(transfer, transfer->failure, message);
}

void osb_transfer_complete(osb_transfer *transfer, CURLcode code)
{
    const char *message = transfer->message[0] ? transfer->message : curl_easy_strerror(code);
    char text[CURL_ERROR_SIZE];
    osb_outcome outcome;

    if (osb_connection_was_stale(&transfer->connection)) {
        if (osb_multi_restart(transfer->shard, transfer->easy) == CURLM_OK)
            return;
        code = CURLE_OUT_OF_MEMORY;
    }
    if (code != CURLE_OK && transfer->failure) {
        end_with_failure(transfer);
        return;
    }
    if (is_open_websocket(transfer)) {
        if (code == CURLE_OK)
            end_websocket(transfer, OSB_RECEIVE_FAILED, CUT_SHORT);
        else
            end_websocket(transfer, osb_connection_outcome(&transfer->connection, code), message);
        return;
    }
    if (transfer->websocket && code == CURLE_OK && !transfer->response.status) { /* libcurl takes half a head for a whole one */
        osb_transfer_end(transfer, OSB_RECEIVE_FAILED, NO_RESPONSE);
        return;
    }
    outcome = osb_connection_outcome(&transfer->connection, code);
    if (outcome == OSB_NO_MEMORY && !transfer->response.status && osb_transfer_sent(transfer)) {
        /* libcurl before 8.6 has no other result for a line of more than 100 KB. */
        message = "a line of the response's head is too long";
        outcome = OSB_BAD_RESPONSE;
    }
    if (osb_outcome_is_before_sending(outcome) && osb_transfer_sent(transfer)) {
        /* The connection broke after the request, and libcurl could not connect again: the server may have carried it out. */
        snprintf(text, sizeof text, "the connection broke after the request was sent; then: %.180s", message);
        message = text;
        outcome = OSB_RECEIVE_FAILED;
    } else if (code == CURLE_SEND_FAIL_REWIND) {
        message = "the connection broke after the request was sent, and it must not be sent twice";
    } else if (outcome == OSB_NO_MEMORY || outcome == OSB_NO_DESCRIPTORS) {
        message = NULL;
    }
    osb_transfer_end(transfer, outcome, message);
}

void osb_transfer_drop_after_fork(osb_transfer *transfer)
{
    transfer->easy = NULL;
    transfer->headers = NULL;
    osb_transfer_end(transfer, OSB_FORKED, NULL);
}

void osb_transfer_free(osb_transfer *transfer)
{
    if (!transfer)
        return;
    if (osb_multi_is_inherited(transfer->multi))
        osb_transfer_drop_after_fork(transfer);
    osb_transfer_end(transfer, OSB_CLOSED, NULL);
    osb_transfer_set_unmark(&transfer->member, OSB_CHANGED);
    osb_body_free(&transfer->body);
    osb_response_free(&transfer->response);
    if (transfer->websocket)
        osb_websocket_free(transfer->websocket);
    osb_free(transfer->websocket);
    osb_multi_release(transfer->multi);
    osb_free(transfer);
}

void osb_transfer_detach(osb_transfer *transfer, double seconds, int wait_on_close)
{
    osb_multi *multi = transfer->multi;

    /*
     * The bytes of parts belong to the caller, so a body in parts cannot stay behind. A WebSocket that is not open yet cannot be
     * closed in the ordinary way.
     */
    if (transfer->outcome != OSB_RUNNING || transfer->has_parts || osb_multi_is_inherited(multi)
        || (transfer->websocket && !transfer->websocket->open)) {
        osb_transfer_free(transfer);
        return;
    }
    osb_transfer_set_detach(&multi->set, &transfer->member, wait_on_close);
    osb_response_discard(&transfer->response);
    if (transfer->websocket) {
        osb_websocket_discard(transfer->websocket);
        osb_websocket_close(transfer->websocket, OSB_WS_NORMAL_CLOSURE, NULL, 0, osb_now());
    }
    osb_transfer_check_pause(transfer);
    transfer->deadline = osb_now() + seconds;
    transfer->idle_timeout = 0;
    osb_transfer_update_clock(transfer);
}

/* Pauses. */

/* Returns 1 when libcurl has paused the upload, because it had no bytes to send. */
static int send_is_paused(const osb_transfer *transfer)
{
    return transfer->websocket ? transfer->websocket->send_paused : transfer->body.waiting_for_data;
}

static int can_send(const osb_transfer *transfer)
{
    if (!transfer->websocket)
        return osb_body_can_resume(&transfer->body);
    /* After a refusal the upload must end, so that libcurl ends the transfer. */
    return osb_websocket_can_send(transfer->websocket)
        || (transfer->websocket->send_paused && transfer->response.status && !transfer->websocket->open);
}

static int receive_is_paused(const osb_transfer *transfer)
{
    return is_open_websocket(transfer) ? transfer->websocket->receive_paused : transfer->response.paused;
}

static int can_receive(const osb_transfer *transfer)
{
    return is_open_websocket(transfer) ? osb_websocket_can_receive(transfer->websocket)
                                       : osb_response_can_resume(&transfer->response);
}

void osb_transfer_check_pause(osb_transfer *transfer)
{
    if (can_receive(transfer) || can_send(transfer) || (transfer->websocket && osb_websocket_is_over(transfer->websocket)))
        osb_transfer_set_mark(&transfer->multi->set, &transfer->member, OSB_RESUMABLE);
}

void osb_transfer_consume(osb_transfer *transfer, size_t length)
{
    osb_event_stream_skip(&transfer->response.events, length);
    osb_transfer_check_pause(transfer);
}

osb_event_status osb_transfer_next_event(osb_transfer *transfer, osb_event *event)
{
    osb_event_status status = osb_event_stream_next(&transfer->response.events, event);

    osb_transfer_check_pause(transfer); /* a long event may need the bytes behind the pause */
    return status;
}

void osb_transfer_remove_event(osb_transfer *transfer)
{
    osb_event_stream_remove(&transfer->response.events);
    osb_transfer_check_pause(transfer);
}

int osb_transfer_write(osb_transfer *transfer, size_t part, const char *bytes, size_t length)
{
    int failed = osb_body_write(&transfer->body, part, bytes, length);

    osb_transfer_check_pause(transfer);
    return failed;
}

static int is_paused(const osb_transfer *transfer)
{
    return receive_is_paused(transfer) || send_is_paused(transfer);
}

void osb_transfer_resume(osb_transfer *transfer)
{
    int receives = !receive_is_paused(transfer) || can_receive(transfer);
    int sends = !send_is_paused(transfer) || can_send(transfer);
    CURLcode code;

    if (transfer->websocket && osb_websocket_is_over(transfer->websocket)) {
        end_websocket(transfer, OSB_COMPLETE, NULL);
        return;
    }
    transfer->last_activity = transfer->multi->now;
    /* Before the call: it may bring bytes, and a new pause. */
    if (receives && is_open_websocket(transfer))
        transfer->websocket->receive_paused = 0;
    else if (receives)
        transfer->response.paused = 0;
    if (sends && transfer->websocket)
        transfer->websocket->send_paused = 0;
    else if (sends)
        transfer->body.waiting_for_data = 0;
    code = curl_easy_pause(transfer->easy, (receives ? CURLPAUSE_RECV_CONT : CURLPAUSE_RECV) | (sends ? CURLPAUSE_SEND_CONT : CURLPAUSE_SEND));
    if (code)
        osb_transfer_complete(transfer, code);
    else
        osb_transfer_check_clock(transfer);
}

/* Clocks. */

static double earlier(double a, double b)
{
    if (a < 0 || b < 0)
        return a < 0 ? b : a;
    return a < b ? a : b;
}

/* Returns when the idle timeout runs out; -1: never. A WebSocket has its pings instead. */
static double idle_clock(const osb_transfer *transfer)
{
    if (transfer->idle_timeout <= 0 || transfer->websocket || is_paused(transfer))
        return -1;
    return transfer->last_activity + transfer->idle_timeout;
}

/*
 * The clock of a transfer in the set is not moved with each byte, although its idle timeout begins anew then: it may come too early,
 * and is set anew when it does.
 */
void osb_transfer_update_clock(osb_transfer *transfer)
{
    double next = earlier(transfer->deadline, idle_clock(transfer));

    if (is_open_websocket(transfer))
        next = earlier(next, osb_websocket_clock(transfer->websocket));
    osb_transfer_set_clock(&transfer->multi->set, &transfer->member, next);
}

void osb_transfer_check_clock(osb_transfer *transfer)
{
    double now = transfer->multi->now, idle = idle_clock(transfer);

    if (transfer->deadline >= 0 && transfer->deadline <= now) {
        osb_transfer_end(transfer, OSB_TIMEOUT, NULL);
        return;
    }
    if (idle >= 0 && idle <= now) {
        osb_transfer_end(transfer, OSB_IDLE_TIMEOUT, NULL);
        return;
    }
    if (is_open_websocket(transfer)) {
        const char *problem = osb_websocket_tick(transfer->websocket, now);
        if (problem) {
            end_websocket(transfer, transfer->websocket->close_sent ? OSB_TIMEOUT : OSB_IDLE_TIMEOUT, problem);
            return;
        }
        osb_transfer_check_pause(transfer); /* a ping may have to be sent */
    }
    osb_transfer_update_clock(transfer);
}

/* The end of a WebSocket's connection. */

void osb_transfer_check_quiet(osb_transfer *transfer)
{
    const osb_websocket *websocket = transfer->websocket;
    int refused = transfer->response.status && !is_open_websocket(transfer);

    /* libcurl waits for nothing either while both directions are paused by us. */
    if (!websocket || refused || transfer->member.socket >= 0 || !send_is_paused(transfer) || receive_is_paused(transfer))
        return;
    if (websocket->open)
        end_websocket(transfer, OSB_RECEIVE_FAILED, CUT_SHORT);
    else
        osb_transfer_end(transfer, OSB_RECEIVE_FAILED, NO_RESPONSE);
}
