#include "multi.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "alloc.h"
#include "clock.h"
#include "process.h"
#include "sigpipe.h"

enum {
    MAX_IDLE_CONNECTIONS = 64, /* beside those in use */
    MAX_READY = 64             /* descriptors served in one step */
};

/* Once a process. */

static pthread_once_t global_once = PTHREAD_ONCE_INIT;
static CURLcode global_code;

static void global_init(void)
{
    global_code = curl_global_init(CURL_GLOBAL_DEFAULT);
    osb_stay_loaded();
}

/* libcurl's callbacks. */

/* Returns the member of an easy handle, or NULL: libcurl has handles of its own. */
static osb_member *member_of(CURL *easy)
{
    char *member = NULL;

    if (curl_easy_getinfo(easy, CURLINFO_PRIVATE, &member))
        return NULL;
    return (osb_member *)(void *)member;
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *argument, void *socket_argument)
{
    osb_multi *multi = argument;
    int events = what == CURL_POLL_REMOVE ? 0
        : (what & CURL_POLL_IN ? OSB_READABLE : 0) | (what & CURL_POLL_OUT ? OSB_WRITABLE : 0);

    (void)socket_argument;
    if (what == CURL_POLL_REMOVE) {
        osb_member *member = member_of(easy);
        if (member)
            osb_transfer_set_mark(&multi->set, member, OSB_QUIET);
    }
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
    osb_multi *multi = osb_calloc(1, sizeof *multi);

    if (!multi)
        return NULL;
    multi->references = 1;
    multi->timer = -1;
    multi->process = osb_process();
    osb_transfer_set_init(&multi->set);
    return multi;
}

void osb_multi_hold(osb_multi *multi)
{
    ++multi->references;
}

void osb_multi_release(osb_multi *multi)
{
    if (--multi->references > 0)
        return;
    osb_multi_drop_handles(multi);
    osb_transfer_set_free(&multi->set);
    osb_free(multi);
}

int osb_multi_is_inherited(const osb_multi *multi)
{
    return multi->process != osb_process();
}

void osb_multi_disown_handles(osb_multi *multi)
{
    multi->process = osb_process();
    multi->curl = NULL;
    osb_poller_free(multi->poller); /* closes this process's descriptor of the set, not the set */
    multi->poller = NULL;
    multi->timer = -1;
}

void osb_multi_drop_handles(osb_multi *multi)
{
    if (osb_multi_is_inherited(multi)) {
        osb_multi_disown_handles(multi);
        return;
    }
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

/*
 * libcurl makes the wake-up descriptors of a multi handle without CLOEXEC and does not report them: they are among the lowest free
 * ones, and open after.
 */
static CURLM *new_curl_multi(void)
{
    enum { CANDIDATE_FDS = 8 };
    int lowest[CANDIDATE_FDS];
    int found = 0;
    CURLM *curl;
    int i;

    while (found < CANDIDATE_FDS && (lowest[found] = fcntl(0, F_DUPFD_CLOEXEC, 3)) >= 0)
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
        osb_multi_drop_handles(multi);
        return curl_multi_strerror(code);
    }
    return NULL;
}

/* Easy handles. */

/* libcurl's limit includes the connections in use: with many of those, it would keep no other. */
static void update_cache_limit(osb_multi *multi)
{
    curl_multi_setopt(multi->curl, CURLMOPT_MAXCONNECTS, (long)multi->set.count + MAX_IDLE_CONNECTIONS);
}

CURLMcode osb_multi_start(osb_multi *multi, CURL *easy)
{
    update_cache_limit(multi);
    return curl_multi_add_handle(multi->curl, easy);
}

void osb_multi_stop(osb_multi *multi, CURL *easy)
{
    osb_sigpipe guard;

    osb_sigpipe_block(&guard); /* closing a TLS connection sends close_notify */
    if (multi->curl) {
        curl_multi_remove_handle(multi->curl, easy);
        update_cache_limit(multi);
    }
    curl_easy_cleanup(easy);
    osb_sigpipe_restore(&guard);
}

void osb_multi_perform(osb_multi *multi, double seconds)
{
    osb_ready ready[MAX_READY];
    osb_sigpipe guard;
    int count = osb_poller_wait(multi->poller, seconds, ready, MAX_READY);
    int i, running;

    multi->now = osb_now();
    osb_sigpipe_block(&guard);
    for (i = 0; i < count; ++i) {
        int mask = (ready[i].events & OSB_READABLE ? CURL_CSELECT_IN : 0) | (ready[i].events & OSB_WRITABLE ? CURL_CSELECT_OUT : 0)
            | (ready[i].events & OSB_FAILED ? CURL_CSELECT_ERR : 0);
        curl_multi_socket_action(multi->curl, ready[i].fd, mask, &running);
    }
    if (multi->timer >= 0 && osb_now() >= multi->timer) {
        multi->timer = -1;
        curl_multi_socket_action(multi->curl, CURL_SOCKET_TIMEOUT, 0, &running);
    }
    osb_sigpipe_restore(&guard);
}

osb_member *osb_multi_next_completed(osb_multi *multi, CURLcode *code)
{
    CURLMsg *message;
    int left;

    while ((message = curl_multi_info_read(multi->curl, &left)) != NULL) {
        osb_member *member = message->msg == CURLMSG_DONE ? member_of(message->easy_handle) : NULL;
        *code = message->data.result;
        if (member)
            return member;
    }
    return NULL;
}
