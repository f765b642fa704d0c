/* The owner's side of a transfer that has switched to WebSocket. The functions of transfer.h apply to it, too. */
#ifndef OSB_WEBSOCKET_TRANSFER_H
#define OSB_WEBSOCKET_TRANSFER_H

#include "transfer.h"

/* Queues a message. The result is CLOSING also for a transfer that is no WebSocket, or has ended. */
osb_websocket_result osb_transfer_send(osb_transfer *transfer, osb_ws_type type, const char *bytes, size_t length);

/* Begins the closing handshake. */
osb_websocket_result osb_transfer_send_close(osb_transfer *transfer, int code, const char *reason, size_t length);

/* Finds the next received message, which stays the next one until it is removed. Returns 0 when there is none. */
int osb_transfer_next_message(osb_transfer *transfer, osb_ws_message *message);
void osb_transfer_remove_message(osb_transfer *transfer);

#endif
