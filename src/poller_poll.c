#include "poller.h"
#include "clock.h"

#if !OSB_POLLER_IS_EPOLL

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>

struct osb_poller {
    struct pollfd *set;
    size_t count;
    size_t capacity;
};

osb_poller *osb_poller_new(void)
{
    return calloc(1, sizeof(osb_poller));
}

void osb_poller_free(osb_poller *poller)
{
    if (!poller)
        return;
    free(poller->set);
    free(poller);
}

int osb_poller_fd(const osb_poller *poller)
{
    (void)poller;
    return -1;
}

int osb_poller_set(osb_poller *poller, int fd, int events)
{
    size_t i = 0;

    while (i < poller->count && poller->set[i].fd != fd)
        ++i;
    if (events == 0) {
        if (i < poller->count)
            poller->set[i] = poller->set[--poller->count];
        return 0;
    }
    if (i == poller->count && fcntl(fd, F_GETFD) < 0)
        return -1; /* as epoll says it */
    if (i == poller->capacity) {
        size_t capacity = poller->capacity ? poller->capacity * 2 : 16;
        struct pollfd *set = realloc(poller->set, capacity * sizeof *set);
        if (!set)
            return -1;
        poller->set = set;
        poller->capacity = capacity;
    }
    if (i == poller->count)
        ++poller->count;
    poller->set[i].fd = fd;
    poller->set[i].events = (short)((events & OSB_READABLE ? POLLIN : 0) | (events & OSB_WRITABLE ? POLLOUT : 0));
    poller->set[i].revents = 0;
    return 0;
}

int osb_poller_alarm(osb_poller *poller, double seconds)
{
    (void)poller;
    return seconds < 0 ? 0 : -1;
}

int osb_poller_wait(osb_poller *poller, double seconds, osb_ready *ready, int most)
{
    int found = 0;
    size_t i;

    if (poll(poller->set, (nfds_t)poller->count, osb_milliseconds(seconds)) <= 0)
        return 0;
    for (i = 0; i < poller->count && found < most; ++i) {
        short events = poller->set[i].revents;
        if (!events)
            continue;
        ready[found].fd = poller->set[i].fd;
        ready[found].events = (events & POLLIN ? OSB_READABLE : 0) | (events & POLLOUT ? OSB_WRITABLE : 0)
            | (events & (POLLERR | POLLHUP | POLLNVAL) ? OSB_FAILED : 0);
        ++found;
    }
    return found;
}

#else
typedef int osb_poller_is_not_poll; /* a translation unit must not be empty */
#endif
