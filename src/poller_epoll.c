#include "poller.h"

#include "alloc.h"
#include "clock.h"
#include "process.h"

#if OSB_POLLER_IS_EPOLL

#include <errno.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

struct osb_poller {
    int fd;
    int alarm;             /* a timer in the set; -1 until it is asked for */
    unsigned long process; /* see process.h */
};

osb_poller *osb_poller_new(void)
{
    osb_poller *poller = osb_malloc(sizeof *poller);
    if (!poller)
        return NULL;
    poller->fd = epoll_create1(EPOLL_CLOEXEC);
    if (poller->fd < 0) {
        osb_free(poller);
        return NULL;
    }
    poller->alarm = -1;
    poller->process = osb_process();
    return poller;
}

void osb_poller_free(osb_poller *poller)
{
    if (!poller)
        return;
    if (poller->alarm >= 0)
        close(poller->alarm);
    close(poller->fd);
    osb_free(poller);
}

int osb_poller_fd(const osb_poller *poller)
{
    return poller->fd;
}

int osb_poller_is_inherited(const osb_poller *poller)
{
    return poller->process != osb_process();
}

/* A change of an inherited set by the child is a change for its parent. */
static int refuse_inherited(const osb_poller *poller)
{
    if (!osb_poller_is_inherited(poller))
        return 0;
    errno = EPERM;
    return -1;
}

int osb_poller_set(osb_poller *poller, int fd, int events, unsigned tag)
{
    struct epoll_event event = { 0 };

    if (refuse_inherited(poller))
        return -1;
    event.data.u64 = (uint64_t)tag << 32 | (uint32_t)fd;
    event.events = (events & OSB_READABLE ? EPOLLIN : 0) | (events & OSB_WRITABLE ? EPOLLOUT : 0);
    if (events == 0) {
        /* A descriptor that was closed has left the set by itself. */
        if (epoll_ctl(poller->fd, EPOLL_CTL_DEL, fd, &event) && errno != ENOENT && errno != EBADF)
            return -1;
        return 0;
    }
    if (epoll_ctl(poller->fd, EPOLL_CTL_MOD, fd, &event) == 0)
        return 0;
    return errno == ENOENT ? epoll_ctl(poller->fd, EPOLL_CTL_ADD, fd, &event) : -1;
}

static int make_alarm(osb_poller *poller)
{
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);

    if (fd < 0)
        return -1;
    if (osb_poller_set(poller, fd, OSB_READABLE, 0)) {
        close(fd);
        return -1;
    }
    poller->alarm = fd;
    return 0;
}

int osb_poller_alarm(osb_poller *poller, double seconds)
{
    struct itimerspec when = { { 0, 0 }, { 0, 0 } };

    if (refuse_inherited(poller))
        return -1;
    if (poller->alarm < 0 && (seconds < 0 || make_alarm(poller)))
        return seconds < 0 ? 0 : -1;
    if (seconds >= 0) {
        when.it_value.tv_sec = (time_t)seconds;
        when.it_value.tv_nsec = (long)((seconds - (double)when.it_value.tv_sec) * 1e9);
        if (when.it_value.tv_sec == 0 && when.it_value.tv_nsec == 0)
            when.it_value.tv_nsec = 1; /* 0 would disarm it */
    }
    return timerfd_settime(poller->alarm, 0, &when, NULL);
}

int osb_poller_wait(osb_poller *poller, double seconds, osb_ready *ready, int most)
{
    struct epoll_event events[64];
    int count, i;

    if (most > 64)
        most = 64;
    count = epoll_wait(poller->fd, events, most, osb_milliseconds(seconds));
    if (count < 0)
        return 0;
    for (i = 0; i < count; ++i) {
        ready[i].fd = (int)(uint32_t)events[i].data.u64;
        ready[i].tag = (unsigned)(events[i].data.u64 >> 32);
        ready[i].events = (events[i].events & EPOLLIN ? OSB_READABLE : 0) | (events[i].events & EPOLLOUT ? OSB_WRITABLE : 0)
            | (events[i].events & (EPOLLERR | EPOLLHUP) ? OSB_FAILED : 0);
    }
    return count;
}

#else
typedef int osb_poller_is_not_epoll; /* a translation unit must not be empty */
#endif
