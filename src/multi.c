#define _GNU_SOURCE /* dladdr, RTLD_NOLOAD */
#include "multi.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "sigpipe.h"
#include "transfer.h"

enum { KEPT_CONNECTIONS = 64 }; /* beside those in use */

/* Once a process. */

static pthread_once_t global_once = PTHREAD_ONCE_INIT;
static CURLcode global_code;

static void global_init(void)
{
    global_code = curl_global_init(CURL_GLOBAL_DEFAULT);
#if defined(RTLD_NODELETE) && defined(RTLD_NOLOAD)
    {
        /* Lua unloads C modules when a state closes; libcurl may have threads in the resolver then, and other states may use us. */
        Dl_info info;
        if (dladdr((void *)&global_code, &info) && info.dli_fname)
            dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
    }
#endif
}

/* libcurl's callbacks. */

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *argument, void *socket_argument)
{
    osb_multi *multi = argument;
    int events = what == CURL_POLL_REMOVE ? 0
        : (what & CURL_POLL_IN ? OSB_READABLE : 0) | (what & CURL_POLL_OUT ? OSB_WRITABLE : 0);

    (void)easy;
    (void)socket_argument;
    return osb_poller_set(multi->poller, fd, events);
}

static int on_timer(CURLM *curl, long milliseconds, void *argument)
{
    osb_multi *multi = argument;

    (void)curl;
    multi->timer = milliseconds < 0 ? -1 : osb_now() + (double)milliseconds / 1000;
    return 0;
}

/* Life. */

osb_multi *osb_multi_new(void)
{
    osb_multi *multi = calloc(1, sizeof *multi);

    if (!multi)
        return NULL;
    multi->references = 1;
    multi->timer = -1;
    multi->process = getpid();
    return multi;
}

void osb_multi_hold(osb_multi *multi)
{
    ++multi->references;
}

static void drop_handles(osb_multi *multi)
{
    if (multi->curl) {
        osb_sigpipe guard;
        osb_sigpipe_block(&guard);
        curl_multi_cleanup(multi->curl); /* it calls on_socket: the poller goes after it */
        osb_sigpipe_restore(&guard);
    }
    multi->curl = NULL;
    osb_poller_free(multi->poller);
    multi->poller = NULL;
    multi->timer = -1;
}

void osb_multi_release(osb_multi *multi)
{
    if (--multi->references > 0)
        return;
    drop_handles(multi);
    free(multi);
}

/* After a fork, the child must not speak on the parent's connections, nor close them. */
static void notice_fork(osb_multi *multi)
{
    pid_t process = getpid();

    if (multi->process == process)
        return;
    multi->process = process;
    multi->curl = NULL;
    while (multi->running)
        osb_transfer_abandon(multi->running);
    osb_poller_free(multi->poller); /* closes this process's descriptor of the set, not the set */
    multi->poller = NULL;
    multi->timer = -1;
}

/*
 * libcurl makes the wake-up descriptors of a multi handle without CLOEXEC and does not tell them: they are among the lowest free ones,
 * and open after.
 */
static CURLM *new_curl_multi(void)
{
    enum { LOOKED_AT = 8 };
    int lowest[LOOKED_AT];
    int found = 0;
    CURLM *curl;
    int i;

    while (found < LOOKED_AT && (lowest[found] = fcntl(0, F_DUPFD_CLOEXEC, 3)) >= 0)
        ++found;
    for (i = 0; i < found; ++i)
        close(lowest[i]);
    curl = curl_multi_init();
    for (i = 0; i < found; ++i) {
        int flags = fcntl(lowest[i], F_GETFD);
        if (flags >= 0)
            fcntl(lowest[i], F_SETFD, flags | FD_CLOEXEC);
    }
    return curl;
}

static CURLMcode set_up(osb_multi *multi)
{
    CURLMcode code = curl_multi_setopt(multi->curl, CURLMOPT_SOCKETFUNCTION, on_socket);

    if (!code)
        code = curl_multi_setopt(multi->curl, CURLMOPT_SOCKETDATA, multi);
    if (!code)
        code = curl_multi_setopt(multi->curl, CURLMOPT_TIMERFUNCTION, on_timer);
    if (!code)
        code = curl_multi_setopt(multi->curl, CURLMOPT_TIMERDATA, multi);
    return code;
}

const char *osb_multi_open(osb_multi *multi)
{
    CURLMcode code;

    if (multi->closed)
        return "the client is closed";
    notice_fork(multi);
    if (multi->curl)
        return NULL;
    pthread_once(&global_once, global_init);
    if (global_code)
        return curl_easy_strerror(global_code);
    multi->poller = osb_poller_new();
    if (!multi->poller)
        return strerror(errno);
    multi->curl = new_curl_multi();
    code = multi->curl ? set_up(multi) : CURLM_OUT_OF_MEMORY;
    if (code) {
        drop_handles(multi);
        return curl_multi_strerror(code);
    }
    return NULL;
}

static int something_must_arrive(const osb_multi *multi)
{
    const osb_transfer *transfer;

    for (transfer = multi->running; transfer; transfer = transfer->next) {
        if (transfer->must_arrive)
            return 1;
    }
    return 0;
}

void osb_multi_close(osb_multi *multi, double patience)
{
    double deadline = osb_now() + patience;

    if (multi->closed)
        return;
    notice_fork(multi);
    while (something_must_arrive(multi) && osb_now() < deadline)
        osb_multi_step(multi, deadline - osb_now());
    multi->closed = 1;
    while (multi->running)
        osb_transfer_end(multi->running, OSB_CLOSED, CURLE_OK);
    drop_handles(multi);
}

/* Work. */

static void take_completed(osb_multi *multi)
{
    CURLMsg *message;
    int left;

    while ((message = curl_multi_info_read(multi->curl, &left)) != NULL) {
        CURLcode code = message->data.result; /* read first: the message dies with the handle */
        char *transfer = NULL;
        if (message->msg != CURLMSG_DONE)
            continue;
        if (curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &transfer) == CURLE_OK && transfer)
            osb_transfer_complete((osb_transfer *)(void *)transfer, code);
    }
}

static void resume_paused(osb_multi *multi)
{
    osb_transfer *transfer;

    for (transfer = multi->running; transfer; transfer = transfer->next) {
        if (osb_transfer_can_resume(transfer))
            osb_transfer_resume(transfer);
    }
}

static void check_clocks(osb_multi *multi)
{
    osb_transfer *transfer = multi->running;

    while (transfer) {
        osb_transfer *next = transfer->next;
        osb_transfer_check_clocks(transfer);
        transfer = next;
    }
}

void osb_multi_step(osb_multi *multi, double seconds)
{
    osb_ready ready[64];
    osb_sigpipe guard;
    double next;
    int count, i, running;

    notice_fork(multi);
    if (!multi->curl)
        return;
    multi->now = osb_now();
    resume_paused(multi);
    next = osb_multi_timeout(multi);
    if (next >= 0 && next < seconds)
        seconds = next;
    count = osb_poller_wait(multi->poller, seconds, ready, 64);
    multi->now = osb_now();
    osb_sigpipe_block(&guard);
    /* Sockets before clocks: what has arrived while the caller was busy must not be called late. */
    for (i = 0; i < count; ++i) {
        int mask = (ready[i].events & OSB_READABLE ? CURL_CSELECT_IN : 0) | (ready[i].events & OSB_WRITABLE ? CURL_CSELECT_OUT : 0)
            | (ready[i].events & OSB_FAILED ? CURL_CSELECT_ERR : 0);
        curl_multi_socket_action(multi->curl, ready[i].fd, mask, &running);
    }
    if (multi->timer >= 0 && osb_now() >= multi->timer) {
        multi->timer = -1;
        curl_multi_socket_action(multi->curl, CURL_SOCKET_TIMEOUT, 0, &running);
    }
    take_completed(multi);
    check_clocks(multi);
    osb_sigpipe_restore(&guard);
}

double osb_multi_timeout(osb_multi *multi)
{
    const osb_transfer *transfer;
    double now = osb_now();
    double next = multi->timer;

    for (transfer = multi->running; transfer; transfer = transfer->next) {
        double clock = osb_transfer_next_clock(transfer);
        if (osb_transfer_can_resume(transfer))
            return 0;
        if (clock >= 0 && (next < 0 || clock < next))
            next = clock;
    }
    if (next < 0)
        return -1;
    return next > now ? next - now : 0;
}

struct osb_transfer *osb_multi_take_changed(osb_multi *multi)
{
    osb_transfer *transfer = multi->changed;

    if (transfer)
        osb_transfer_forget_change(transfer);
    return transfer;
}

/* libcurl's limit counts the connections in use too: with many of those, no other would be kept. */
void osb_multi_make_room(osb_multi *multi)
{
    if (multi->curl)
        curl_multi_setopt(multi->curl, CURLMOPT_MAXCONNECTS, (long)multi->count + KEPT_CONNECTIONS);
}

int osb_multi_fd(osb_multi *multi)
{
    if (osb_multi_open(multi))
        return -1;
    return osb_poller_fd(multi->poller);
}
