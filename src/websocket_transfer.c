#include "websocket_transfer.h"

#include "clock.h"
#include "transfer_internal.h"

static int can_send(const osb_transfer *transfer)
{
    return transfer->websocket && transfer->outcome == OSB_RUNNING && !osb_multi_is_inherited(transfer->multi);
}

osb_websocket_result osb_transfer_send(osb_transfer *transfer, osb_ws_type type, const char *bytes, size_t length)
{
    osb_websocket_result result;

    if (!can_send(transfer))
        return OSB_WEBSOCKET_CLOSING;
    result = osb_websocket_send(transfer->websocket, type, bytes, length);
    osb_transfer_check_pause(transfer);
    return result;
}

osb_websocket_result osb_transfer_send_close(osb_transfer *transfer, int code, const char *reason, size_t length)
{
    osb_websocket_result result;

    if (!can_send(transfer))
        return OSB_WEBSOCKET_CLOSING;
    result = osb_websocket_close(transfer->websocket, code, reason, length, osb_now());
    osb_transfer_check_pause(transfer);
    osb_transfer_update_clock(transfer);
    return result;
}

int osb_transfer_next_message(osb_transfer *transfer, osb_ws_message *message)
{
    return transfer->websocket && osb_websocket_next(transfer->websocket, message);
}

void osb_transfer_remove_message(osb_transfer *transfer)
{
    osb_websocket_remove(transfer->websocket);
    osb_transfer_check_pause(transfer);
}
