#include "large_files.h"

#include "multi.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "alloc.h"
#include "clock.h"
#include "process.h"
#include "sigpipe.h"

enum {
    MAX_SHARD_SIZE = 128,      /* transfers */
    MAX_IDLE_CONNECTIONS = 64, /* of a shard, beside those in use */
    MAX_READY = 64             /* descriptors served in one step */
};

/* Once a process. */

static pthread_mutex_t global_lock = PTHREAD_MUTEX_INITIALIZER; /* there may be Lua states in several threads */
static int is_initialized;

/* A failure is not final: there may be memory at the next request. */
static CURLcode initialize(void)
{
    CURLcode code = CURLE_OK;

    pthread_mutex_lock(&global_lock);
    if (!is_initialized)
        code = curl_global_init(CURL_GLOBAL_DEFAULT);
    is_initialized = !code;
    pthread_mutex_unlock(&global_lock);
    osb_stay_loaded();
    return code;
}

/*
 * libcurl opens the descriptors of its own without CLOEXEC: a child of the host must not hold them open. Of the two sockets by which a
 * thread reports that it has looked up a name, only one is known; the other was made right after it.
 */
static void set_close_on_exec(int fd)
{
    struct stat known, other;
    int flags = fcntl(fd, F_GETFD), next;

    if (flags < 0 || flags & FD_CLOEXEC) /* it is one of ours */
        return;
    fcntl(fd, F_SETFD, flags | FD_CLOEXEC);
    if (fstat(fd, &known))
        return;
    for (next = fd + 1; next <= fd + 8; ++next) {
        if (fstat(next, &other) == 0 && S_ISSOCK(other.st_mode) && other.st_dev == known.st_dev && other.st_ino == known.st_ino + 1)
            fcntl(next, F_SETFD, FD_CLOEXEC);
    }
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
    osb_shard *shard = argument;
    osb_multi *multi = shard->multi;
    int events = what == CURL_POLL_REMOVE ? 0
        : (what & CURL_POLL_IN ? OSB_READABLE : 0) | (what & CURL_POLL_OUT ? OSB_WRITABLE : 0);
    osb_member *member = member_of(easy);

    if (member && events) {
        member->socket = fd;
    } else if (member && member->socket == fd) {
        member->socket = -1;
        osb_transfer_set_mark(&multi->set, member, OSB_QUIET);
    }
    if (events && !socket_argument) {
        set_close_on_exec(fd);
        curl_multi_assign(shard->curl, fd, shard); /* known from now on; a failure costs another call of fcntl() */
    }
    if (osb_poller_set(multi->poller, fd, events, (unsigned)shard->index) == 0 || events == 0)
        return 0;
    /* An error returned to libcurl would end the whole handle. The transfer alone ends, soon. A handle of libcurl's own has no member. */
    multi->watch_error = errno;
    if (member)
        osb_transfer_set_mark(&multi->set, member, OSB_UNWATCHED);
    return 0;
}

static int on_timer(CURLM *curl, long milliseconds, void *argument)
{
    osb_shard *shard = argument;

    (void)curl;
    if (milliseconds < 0)
        osb_clock_remove(&shard->multi->timers, &shard->timer);
    else
        osb_clock_set(&shard->multi->timers, &shard->timer, osb_now() + (double)milliseconds / 1000);
    return 0;
}

/* Shards. */

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

static CURLMcode set_up(osb_shard *shard)
{
    CURLMcode code = curl_multi_setopt(shard->curl, CURLMOPT_SOCKETFUNCTION, on_socket);

    if (!code)
        code = curl_multi_setopt(shard->curl, CURLMOPT_SOCKETDATA, shard);
    if (!code)
        code = curl_multi_setopt(shard->curl, CURLMOPT_TIMERFUNCTION, on_timer);
    if (!code)
        code = curl_multi_setopt(shard->curl, CURLMOPT_TIMERDATA, shard);
#if LIBCURL_VERSION_NUM >= 0x081400
    if (!code) /* threads that look up names are left behind, not waited for: see CURLOPT_QUICK_EXIT in request.c */
        code = curl_multi_setopt(shard->curl, CURLMOPT_QUICK_EXIT, 1L);
#endif
    return code;
}

static void free_shard(osb_shard *shard)
{
    osb_multi *multi = shard->multi;

    if (shard->curl) {
        osb_sigpipe guard;
        osb_sigpipe_block(&guard); /* closing a TLS connection sends close_notify */
        curl_multi_cleanup(shard->curl); /* it calls on_socket */
        osb_sigpipe_restore(&guard);
    }
    multi->shards[shard->index] = NULL;
    multi->free_places -= MAX_SHARD_SIZE - shard->count;
    osb_list_remove(&shard->room);
    osb_list_remove(&shard->active);
    osb_list_remove(&shard->failed);
    osb_clock_remove(&multi->timers, &shard->timer);
    osb_free(shard);
}

/* Returns the index of a free entry, or -1 when memory runs out. */
static long find_entry(osb_multi *multi)
{
    size_t i = 0;
    osb_shard **shards;

    while (i < multi->shard_count && multi->shards[i])
        ++i;
    if (i < multi->shard_count)
        return (long)i;
    shards = osb_realloc(multi->shards, (i + 1) * sizeof *shards);
    if (!shards)
        return -1;
    multi->shards = shards;
    multi->shards[multi->shard_count++] = NULL;
    return (long)i;
}

static osb_shard *new_shard(osb_multi *multi)
{
    long index = find_entry(multi);
    osb_shard *shard = index < 0 || osb_clock_heap_reserve(&multi->timers, multi->shard_count) ? NULL : osb_calloc(1, sizeof *shard);

    if (!shard)
        return NULL;
    shard->multi = multi;
    shard->index = (size_t)index;
    multi->shards[index] = shard;
    multi->free_places += MAX_SHARD_SIZE;
    shard->curl = new_curl_multi();
    if (!shard->curl || set_up(shard)) {
        free_shard(shard);
        return NULL;
    }
    osb_list_move_first(&multi->with_room, &shard->room);
    return shard;
}

/* libcurl's limit includes the connections in use: with many of those, it would keep no other. */
static void update_cache_limit(osb_shard *shard)
{
    curl_multi_setopt(shard->curl, CURLMOPT_MAXCONNECTS, (long)shard->count + MAX_IDLE_CONNECTIONS);
}

osb_shard *osb_multi_start(osb_multi *multi, CURL *easy)
{
    osb_node *first = osb_list_first(&multi->with_room);
    osb_shard *shard = first ? OSB_ELEMENT(first, osb_shard, room) : new_shard(multi);

    if (!shard)
        return NULL;
    ++shard->count;
    --multi->free_places;
    if (shard->count == MAX_SHARD_SIZE)
        osb_list_remove(&shard->room);
    update_cache_limit(shard);
    osb_batching_sent(&multi->batching);
    if (curl_multi_add_handle(shard->curl, easy) == CURLM_OK)
        return shard;
    osb_multi_stop(shard, NULL);
    return NULL;
}

void osb_multi_stop(osb_shard *shard, CURL *easy)
{
    osb_sigpipe guard;

    osb_sigpipe_block(&guard); /* closing a TLS connection sends close_notify */
    if (shard && easy)
        curl_multi_remove_handle(shard->curl, easy);
    curl_easy_cleanup(easy);
    osb_sigpipe_restore(&guard);
    if (!shard)
        return;
    --shard->count;
    ++shard->multi->free_places;
    update_cache_limit(shard);
    /* An empty shard is only kept while the others do not have room for some more transfers. */
    if (shard->failure)
        return;
    if (shard->count == 0 && shard->multi->free_places >= MAX_SHARD_SIZE + MAX_SHARD_SIZE / 2)
        free_shard(shard);
    else
        osb_list_move_first(&shard->multi->with_room, &shard->room);
}

/* Life. */

osb_multi *osb_multi_new(void)
{
    osb_multi *multi = osb_calloc(1, sizeof *multi);

    if (!multi)
        return NULL;
    multi->references = 1;
    multi->process = osb_process();
    osb_list_init(&multi->with_room);
    osb_list_init(&multi->active);
    osb_list_init(&multi->failed);
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

void osb_multi_drop_handles(osb_multi *multi)
{
    int is_inherited = osb_multi_is_inherited(multi);
    size_t i;

    for (i = 0; i < multi->shard_count; ++i) {
        if (is_inherited && multi->shards[i])
            multi->shards[i]->curl = NULL; /* its memory is lost, but the parent's connections stay as they are */
        if (multi->shards[i])
            free_shard(multi->shards[i]);
    }
    multi->process = osb_process();
    osb_free(multi->shards);
    multi->shards = NULL;
    multi->shard_count = 0;
    osb_clock_heap_free(&multi->timers);
    osb_poller_free(multi->poller); /* of an inherited set, this closes the descriptor of this process only */
    multi->poller = NULL;
}

osb_outcome osb_multi_open(osb_multi *multi)
{
    if (multi->closed)
        return OSB_CLOSED;
    if (multi->poller)
        return OSB_RUNNING;
    if (initialize() != CURLE_OK)
        return OSB_NO_MEMORY;
    multi->poller = osb_poller_new();
    if (multi->poller)
        return OSB_RUNNING;
    return errno == EMFILE || errno == ENFILE ? OSB_NO_DESCRIPTORS : OSB_NO_MEMORY;
}

/* Work. */

static void act(osb_shard *shard, curl_socket_t fd, int mask)
{
    int running;
    CURLMcode code = shard->failure ? shard->failure : curl_multi_socket_action(shard->curl, fd, mask, &running);

    osb_list_add(&shard->multi->active, &shard->active);
    if (!code)
        return;
    shard->failure = code;
    osb_list_add(&shard->multi->failed, &shard->failed);
    osb_list_remove(&shard->room);
}

void osb_multi_perform(osb_multi *multi, double seconds)
{
    osb_ready ready[MAX_READY];
    osb_sigpipe guard;
    osb_clock *timer;
    int count = osb_poller_wait(multi->poller, seconds, ready, MAX_READY);
    double now;
    int i;

    multi->now = osb_now();
    if (count > 0 && osb_batching_wait(&multi->batching, multi->now))
        multi->now = osb_now();
    osb_sigpipe_block(&guard);
    for (i = 0; i < count; ++i) {
        int mask = (ready[i].events & OSB_READABLE ? CURL_CSELECT_IN : 0) | (ready[i].events & OSB_WRITABLE ? CURL_CSELECT_OUT : 0)
            | (ready[i].events & OSB_FAILED ? CURL_CSELECT_ERR : 0);
        if (ready[i].tag < multi->shard_count && multi->shards[ready[i].tag])
            act(multi->shards[ready[i].tag], ready[i].fd, mask);
    }
    now = osb_now();
    osb_batching_read(&multi->batching, now);
    while ((timer = osb_clock_first(&multi->timers)) != NULL && timer->at <= now) {
        osb_clock_remove(&multi->timers, timer);
        act(OSB_ELEMENT(timer, osb_shard, timer), CURL_SOCKET_TIMEOUT, 0);
    }
    osb_sigpipe_restore(&guard);
}

CURLMcode osb_multi_restart(osb_shard *shard, CURL *easy)
{
    CURLMcode code = curl_multi_remove_handle(shard->curl, easy);

    if (!code && curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L) != CURLE_OK)
        code = CURLM_INTERNAL_ERROR;
    return code ? code : curl_multi_add_handle(shard->curl, easy);
}

int osb_multi_has_failed(const osb_multi *multi)
{
    return osb_list_first(&multi->failed) != NULL;
}

void osb_multi_drop_failed(osb_multi *multi)
{
    osb_node *first;

    while ((first = osb_list_first(&multi->failed)) != NULL)
        free_shard(OSB_ELEMENT(first, osb_shard, failed));
}

double osb_multi_timer(const osb_multi *multi)
{
    const osb_clock *first = osb_clock_first(&multi->timers);

    return first ? first->at : -1;
}

/* Returns the member of the next message, or NULL. */
static osb_member *next_message(osb_shard *shard, CURLcode *code)
{
    CURLMsg *message;
    int left;

    while ((message = curl_multi_info_read(shard->curl, &left)) != NULL) {
        osb_member *member = message->msg == CURLMSG_DONE ? member_of(message->easy_handle) : NULL;
        *code = message->data.result;
        if (member)
            return member;
    }
    return NULL;
}

osb_member *osb_multi_next_completed(osb_multi *multi, CURLcode *code)
{
    osb_node *first;

    while ((first = osb_list_first(&multi->active)) != NULL) {
        osb_shard *shard = OSB_ELEMENT(first, osb_shard, active);
        osb_member *member = next_message(shard, code);
        if (member)
            return member;
        osb_list_remove(&shard->active);
    }
    return NULL;
}
