/*
 * The driver moves the transfers of a multi, and is made to be embedded. There is one descriptor to watch (osb_driver_fd), one time
 * to wake up at (osb_driver_timeout), and one function to call then (osb_driver_step). No thread, no callback into the caller: results
 * are left in the transfers' queues.
 *
 * After a fork the child drops the inherited handles, without touching the parent's connections, and starts anew with its first request.
 */
#ifndef OSB_DRIVER_H
#define OSB_DRIVER_H

#include "transfer.h"

/* Starts a request: see osb_transfer_start(). */
osb_transfer *osb_driver_request(osb_multi *multi, const osb_request *request);

/* Moves the bytes that can be moved, and waits at most `seconds` for some to come. */
void osb_driver_step(osb_multi *multi, double seconds);

/* Returns the seconds until osb_driver_step() should be called even though the descriptor is quiet; -1: there is no such need. */
double osb_driver_timeout(const osb_multi *multi);

/*
 * Returns the next transfer with news for its owner (a head, bytes, room for bytes, the end), or NULL. Each is returned once, until
 * there is more: among thousands of waiting transfers the few that moved are found without checking all.
 */
osb_transfer *osb_driver_next_changed(osb_multi *multi);

/* Returns the descriptor to watch for reading, or -1 where the platform has none. */
int osb_driver_fd(osb_multi *multi);

/* Ends every transfer, after waiting at most `seconds` for those that closing waits for (osb_transfer_detach). */
void osb_driver_close(osb_multi *multi, double seconds);

#endif
