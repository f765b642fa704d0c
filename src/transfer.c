#include "transfer_internal.h"

#include <stdio.h>
#include <string.h>

#include "alloc.h"
#include "clock.h"

/* libcurl's callbacks only move bytes and record what happened. */

static void mark_changed(osb_transfer *transfer)
{
    osb_transfer_set_mark(&transfer->multi->set, &transfer->member, OSB_CHANGED);
}

/* Returns the number that libcurl expects for `length` bytes that were passed to the response. */
static size_t received(osb_transfer *transfer, osb_received result, size_t length)
{
    transfer->last_activity = transfer->multi->now;
    osb_batching_received(&transfer->multi->batching, length);
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

    if (osb_transfer_is_open_websocket(transfer))
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
    osb_batching_sent(&transfer->multi->batching);
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
    osb_connection_init(&transfer->connection, request->url, request->websocket != NULL);
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

void osb_transfer_end_websocket(osb_transfer *transfer, osb_outcome outcome, const char *message)
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
    if (osb_transfer_is_open_websocket(transfer)) {
        if (code == CURLE_OK)
            osb_transfer_end_websocket(transfer, OSB_RECEIVE_FAILED, OSB_CUT_SHORT);
        else
            osb_transfer_end_websocket(transfer, osb_connection_outcome(&transfer->connection, code), message);
        return;
    }
    if (transfer->websocket && code == CURLE_OK && !transfer->response.status) { /* libcurl takes half a head for a whole one */
        osb_transfer_end(transfer, OSB_RECEIVE_FAILED, OSB_NO_RESPONSE);
        return;
    }
    outcome = osb_connection_outcome(&transfer->connection, code);
    if (outcome == OSB_NO_MEMORY && !transfer->response.status && osb_transfer_sent(transfer)) {
        /* libcurl before 8.6 has no other result for a line of more than 100 KB. */
        message = "a line of the response's head is too long";
        outcome = OSB_BAD_RESPONSE;
    }
    if (strncmp(message, "Out of memory in chunked", 24) == 0) {
        /* Versions of libcurl such as 7.88 and 8.14 report a line of more than 4 KB after the last chunk like this. */
        message = "a line of the trailers is too long";
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
