#include "transfer_internal.h"

/* How a transfer pauses and goes on, and its clocks. */

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
    return osb_transfer_is_open_websocket(transfer) ? transfer->websocket->receive_paused : transfer->response.paused;
}

static int can_receive(const osb_transfer *transfer)
{
    return osb_transfer_is_open_websocket(transfer) ? osb_websocket_can_receive(transfer->websocket)
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
        osb_transfer_end_websocket(transfer, OSB_COMPLETE, NULL);
        return;
    }
    transfer->last_activity = transfer->multi->now;
    /* Before the call: it may bring bytes, and a new pause. */
    if (receives && osb_transfer_is_open_websocket(transfer))
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

    if (osb_transfer_is_open_websocket(transfer))
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
    if (osb_transfer_is_open_websocket(transfer)) {
        const char *problem = osb_websocket_tick(transfer->websocket, now);
        if (problem) {
            osb_transfer_end_websocket(transfer, transfer->websocket->close_sent ? OSB_TIMEOUT : OSB_IDLE_TIMEOUT, problem);
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
    int refused = transfer->response.status && !osb_transfer_is_open_websocket(transfer);

    /* libcurl waits for nothing either while both directions are paused by us. */
    if (!websocket || refused || transfer->member.socket >= 0 || !send_is_paused(transfer) || receive_is_paused(transfer))
        return;
    if (websocket->open)
        osb_transfer_end_websocket(transfer, OSB_RECEIVE_FAILED, OSB_CUT_SHORT);
    else
        osb_transfer_end(transfer, OSB_RECEIVE_FAILED, OSB_NO_RESPONSE);
}
