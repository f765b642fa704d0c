/*
 * The process that runs, for everything that must remember who made it: a forked child shares sockets, epoll sets and timers with
 * its parent, and must neither use nor close them on the parent's behalf.
 */
#ifndef OSB_PROCESS_H
#define OSB_PROCESS_H

/*
 * Returns a number that differs between a process and its children. It needs no system call, because the C library calls back on
 * fork(). A child that is made by the bare system call is not noticed.
 */
unsigned long osb_process(void);

/* Keeps this module in memory when Lua unloads it: callbacks and threads of libcurl's may outlive a Lua state. */
void osb_stay_loaded(void);

#endif
