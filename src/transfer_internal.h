/* The common part of transfer.c, transfer_flow.c and the driver. */
#ifndef OSB_TRANSFER_INTERNAL_H
#define OSB_TRANSFER_INTERNAL_H

#include "transfer.h"

/* Messages for connections that end too early. */
#define OSB_NO_RESPONSE "the connection ended before the response"
#define OSB_CUT_SHORT "the connection ended without a close frame"

static inline int osb_transfer_is_open_websocket(const osb_transfer *transfer)
{
    return transfer->websocket && transfer->websocket->open;
}

/* Ends a transfer that runs; a detached one is freed. `message` NULL: the outcome's own. */
void osb_transfer_end(osb_transfer *transfer, osb_outcome outcome, const char *message);

/* Ends an open WebSocket. `outcome` and `message` apply when the server neither closed it nor violated the protocol. */
void osb_transfer_end_websocket(osb_transfer *transfer, osb_outcome outcome, const char *message);

/* Ends a transfer with libcurl's result. */
void osb_transfer_complete(osb_transfer *transfer, CURLcode code);

/* In a child after a fork: ends a transfer without touching its connection, which is the parent's. */
void osb_transfer_drop_after_fork(osb_transfer *transfer);

/* Lets a paused transfer go on, or ends a WebSocket that is closed. */
void osb_transfer_resume(osb_transfer *transfer);

/* Marks a transfer that has paused, or a WebSocket that is closed, when it can go on. */
void osb_transfer_check_pause(osb_transfer *transfer);

/*
 * Ends a WebSocket whose connection has ended. While its upload is paused, libcurl reports that only by not waiting for the socket any
 * more.
 */
void osb_transfer_check_quiet(osb_transfer *transfer);

/* Sets the clock of a transfer anew. */
void osb_transfer_update_clock(osb_transfer *transfer);

/* Ends a transfer whose time has run out, or sets its clock anew. */
void osb_transfer_check_clock(osb_transfer *transfer);

#endif
