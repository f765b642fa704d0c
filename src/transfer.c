#include "transfer_internal.h"

#include <stdio.h>

#include "alloc.h"
#include "clock.h"

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

static size_t on_header(char *line, size_t size, size_t count, void *argument)
{
    osb_transfer *transfer = argument;
    osb_received result = osb_response_header(&transfer->response, line, size * count);

    if (result == OSB_RECEIVED_HEAD)
        mark_changed(transfer);
    return received(transfer, result, size * count);
}

static size_t on_body(char *bytes, size_t size, size_t count, void *argument)
{
    osb_transfer *transfer = argument;
    osb_received result = osb_response_body(&transfer->response, bytes, size * count);

    if (result == OSB_RECEIVED)
        mark_changed(transfer);
    return received(transfer, result, size * count);
}

static size_t on_read(char *into, size_t size, size_t count, void *argument)
{
    osb_transfer *transfer = argument;
    long got = osb_body_read(&transfer->body, into, size * count);

    transfer->last_activity = transfer->multi->now;
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

static CURLcode run(osb_transfer *transfer, const osb_request *request)
{
    osb_multi *multi = transfer->multi;
    CURLcode code;

    code = osb_request_body(request, &transfer->body);
    if (code == CURLE_READ_ERROR)
        transfer->failure = OSB_BODY_FAILED;
    if (code)
        return code;
    transfer->easy = curl_easy_init();
    if (!transfer->easy)
        return CURLE_OUT_OF_MEMORY;
    code = set_callbacks(transfer);
    if (!code)
        code = osb_request_set_up(request, transfer->easy, &transfer->body, &transfer->headers);
    if (!code && osb_transfer_set_add(&multi->set, &transfer->member))
        code = CURLE_OUT_OF_MEMORY;
    if (code)
        return code;
    transfer->shard = osb_multi_start(multi, transfer->easy);
    if (!transfer->shard)
        return CURLE_OUT_OF_MEMORY;
    osb_transfer_check_clock(transfer);
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

/* Ends a transfer in whose callback something failed. */
static void end_with_failure(osb_transfer *transfer)
{
    const char *message = NULL;

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
    osb_multi_release(transfer->multi);
    osb_free(transfer);
}

void osb_transfer_detach(osb_transfer *transfer, double seconds, int wait_on_close)
{
    osb_multi *multi = transfer->multi;

    /* The bytes of parts belong to the caller, so a body in parts cannot stay behind. */
    if (transfer->outcome != OSB_RUNNING || transfer->has_parts || osb_multi_is_inherited(multi)) {
        osb_transfer_free(transfer);
        return;
    }
    osb_transfer_set_detach(&multi->set, &transfer->member, wait_on_close);
    osb_response_discard(&transfer->response);
    if (osb_response_can_resume(&transfer->response))
        osb_transfer_set_mark(&multi->set, &transfer->member, OSB_RESUMABLE);
    transfer->deadline = osb_now() + seconds;
    transfer->idle_timeout = 0;
    osb_transfer_set_clock(&multi->set, &transfer->member, transfer->deadline);
}

/* Pauses. */

static void check_pause(osb_transfer *transfer)
{
    if (osb_response_can_resume(&transfer->response) || osb_body_can_resume(&transfer->body))
        osb_transfer_set_mark(&transfer->multi->set, &transfer->member, OSB_RESUMABLE);
}

void osb_transfer_consume(osb_transfer *transfer, size_t length)
{
    osb_event_stream_skip(&transfer->response.events, length);
    check_pause(transfer);
}

osb_event_status osb_transfer_next_event(osb_transfer *transfer, osb_event *event)
{
    osb_event_status status = osb_event_stream_next(&transfer->response.events, event);

    check_pause(transfer); /* a long event may need the bytes behind the pause */
    return status;
}

void osb_transfer_remove_event(osb_transfer *transfer)
{
    osb_event_stream_remove(&transfer->response.events);
    check_pause(transfer);
}

int osb_transfer_write(osb_transfer *transfer, size_t part, const char *bytes, size_t length)
{
    int failed = osb_body_write(&transfer->body, part, bytes, length);

    check_pause(transfer);
    return failed;
}

static int is_paused(const osb_transfer *transfer)
{
    return transfer->response.paused || transfer->body.waiting_for_data;
}

void osb_transfer_resume(osb_transfer *transfer)
{
    int receives = !transfer->response.paused || osb_response_can_resume(&transfer->response);
    int sends = !transfer->body.waiting_for_data || osb_body_can_resume(&transfer->body);
    CURLcode code;

    transfer->last_activity = transfer->multi->now;
    if (receives)
        transfer->response.paused = 0; /* before the call: it may bring bytes, and a new pause */
    if (sends)
        transfer->body.waiting_for_data = 0;
    code = curl_easy_pause(transfer->easy, (receives ? CURLPAUSE_RECV_CONT : CURLPAUSE_RECV) | (sends ? CURLPAUSE_SEND_CONT : CURLPAUSE_SEND));
    if (code)
        osb_transfer_complete(transfer, code);
    else
        osb_transfer_check_clock(transfer);
}

/* Clocks. */

/*
 * The clock of a transfer in the set is not moved with each byte, although its idle timeout begins anew then: it may come too early,
 * and is set anew when it does.
 */
void osb_transfer_check_clock(osb_transfer *transfer)
{
    osb_multi *multi = transfer->multi;
    double idle = transfer->idle_timeout > 0 && !is_paused(transfer) ? transfer->last_activity + transfer->idle_timeout : -1;
    double next = transfer->deadline;

    if (next >= 0 && next <= multi->now) {
        osb_transfer_end(transfer, OSB_TIMEOUT, NULL);
        return;
    }
    if (idle >= 0 && idle <= multi->now) {
        osb_transfer_end(transfer, OSB_IDLE_TIMEOUT, NULL);
        return;
    }
    if (idle >= 0 && (next < 0 || idle < next))
        next = idle;
    osb_transfer_set_clock(&multi->set, &transfer->member, next);
}
