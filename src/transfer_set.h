/*
 * The set of running transfers: which of them have news, which can go on after a pause, and whose clock runs out next.
 *
 * Nothing here depends on how many transfers wait: each operation takes constant time, or logarithmic time where it moves a clock.
 * The set knows a transfer only by the osb_member that it begins with.
 */
#ifndef OSB_TRANSFER_SET_H
#define OSB_TRANSFER_SET_H

#include "clock_heap.h"
#include "list.h"

/* The marks of members. Marked members are taken in the order in which they were marked. */
typedef enum osb_mark {
    OSB_CHANGED,   /* it has news for its owner */
    OSB_RESUMABLE, /* it runs and is paused, and can go on */
    OSB_UNWATCHED, /* it runs, and one of its sockets cannot be watched */
    OSB_QUIET,     /* it runs, and libcurl may have stopped waiting for its socket */
    OSB_MARKS
} osb_mark;

typedef struct osb_member {
    unsigned long id; /* among the members that the set has ever had; never used again */
    osb_node running;
    osb_node marks[OSB_MARKS];
    osb_clock clock;
    int detached; /* it has no owner who would ask for news */
    int socket;   /* on which libcurl waits; -1: on none */
    int wait_on_close;
} osb_member;

typedef struct osb_transfer_set {
    osb_node running; /* in the order of their start */
    osb_node marks[OSB_MARKS];
    osb_clock_heap clocks;
    unsigned long last_id;
    size_t count;         /* running members */
    size_t wait_on_close; /* running members that closing waits for */
} osb_transfer_set;

void osb_transfer_set_init(osb_transfer_set *set);

/* Frees the memory of a set without members. */
void osb_transfer_set_free(osb_transfer_set *set);

/* Gives a zeroed member its id. It does not run yet, but can have news. */
void osb_transfer_set_enrol(osb_transfer_set *set, osb_member *member);

/* Adds a member to the running ones. Returns 0, or -1 when memory runs out. */
int osb_transfer_set_add(osb_transfer_set *set, osb_member *member);

/* Removes a member from the running ones, if it is among them. It can still have news. */
void osb_transfer_set_remove(osb_transfer_set *set, osb_member *member);

/* Takes the owner from a running member. */
void osb_transfer_set_detach(osb_transfer_set *set, osb_member *member, int wait_on_close);

/* Return the running member that started first, and the next one in this order; or NULL. */
osb_member *osb_transfer_set_first(const osb_transfer_set *set);
osb_member *osb_transfer_set_next(const osb_transfer_set *set, const osb_member *member);

/* Marks a member, once until it is taken. News of a detached member and other marks of a member that does not run are ignored. */
void osb_transfer_set_mark(osb_transfer_set *set, osb_member *member, osb_mark mark);
void osb_transfer_set_unmark(osb_member *member, osb_mark mark);

/* Returns the next member that is marked so and takes the mark from it; NULL when there is none. */
osb_member *osb_transfer_set_take(osb_transfer_set *set, osb_mark mark);
int osb_transfer_set_has(const osb_transfer_set *set, osb_mark mark);

/* Sets the time at which a running member wants to be checked; -1: never. */
void osb_transfer_set_clock(osb_transfer_set *set, osb_member *member, double at);

/* Returns the earliest of these times, or -1. */
double osb_transfer_set_next_clock(const osb_transfer_set *set);

/* Returns a member whose time has come, or NULL. The caller sets its clock anew, or removes the member. */
osb_member *osb_transfer_set_due(const osb_transfer_set *set, double now);

#endif
