/*
 * A thread that watches a descriptor for a host that can watch none, but can read from a unix-domain connection (nginx): one byte is
 * written to the connection whenever the descriptor becomes readable, once for each time it is armed. Linux only.
 */
#ifndef OSB_NOTIFIER_H
#define OSB_NOTIFIER_H

typedef struct osb_notifier osb_notifier;

enum { OSB_NOTIFIER_PATH_SIZE = 108 }; /* of a unix-domain address */

/* Listens on a socket in a directory of its own, which other users cannot enter. Returns NULL with errno when that fails. */
osb_notifier *osb_notifier_new(void);

/* Returns the path to connect to, shorter than OSB_NOTIFIER_PATH_SIZE; empty once the connection is accepted. */
const char *osb_notifier_path(const osb_notifier *notifier);

/* Accepts the connection, removes the socket's name and starts the thread. Returns 0, or -1 with errno. */
int osb_notifier_accept(osb_notifier *notifier);

/* Asks for one byte when `fd` is readable. Returns 0, or -1 with errno. */
int osb_notifier_arm(osb_notifier *notifier, int fd);

/* Stops the thread and closes the connection. */
void osb_notifier_free(osb_notifier *notifier);

#endif
