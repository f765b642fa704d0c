#include "poller.h"

#include "alloc.h"
#include "clock.h"
#include "process.h"

#if !OSB_POLLER_IS_EPOLL

#include <fcntl.h>
#include <poll.h>

struct osb_poller {
    struct pollfd *set;
    size_t count, capacity;
    struct {
        size_t position; /* 1-based, in the set; 0: it is not watched */
        unsigned tag;
    } *places;          /* by descriptor */
    size_t descriptors; /* entries of `places` */
    unsigned long process; /* see process.h */
};

osb_poller *osb_poller_new(void)
{
    osb_poller *poller = osb_calloc(1, sizeof(osb_poller));

    if (poller)
        poller->process = osb_process();
    return poller;
}

void osb_poller_free(osb_poller *poller)
{
    if (!poller)
        return;
    osb_free(poller->set);
    osb_free(poller->places);
    osb_free(poller);
}

int osb_poller_is_inherited(const osb_poller *poller)
{
    return poller->process != osb_process();
}

int osb_poller_fd(const osb_poller *poller)
{
    (void)poller;
    return -1;
}

static void remove_fd(osb_poller *poller, int fd)
{
    size_t position = (size_t)fd < poller->descriptors ? poller->places[fd].position : 0;

    if (position == 0)
        return;
    poller->set[position - 1] = poller->set[--poller->count];
    poller->places[poller->set[position - 1].fd].position = position;
    poller->places[fd].position = 0;
}

/* Makes room for a descriptor. Returns 0, or -1. */
static int reserve(osb_poller *poller, int fd)
{
    if (fcntl(fd, F_GETFD) < 0)
        return -1; /* as epoll reports it */
    if ((size_t)fd >= poller->descriptors) {
        size_t descriptors = (size_t)fd + 64;
        void *places = osb_realloc(poller->places, descriptors * sizeof *poller->places);
        if (!places)
            return -1;
        poller->places = places;
        while (poller->descriptors < descriptors)
            poller->places[poller->descriptors++].position = 0;
    }
    if (poller->count == poller->capacity) {
        size_t capacity = poller->capacity ? poller->capacity * 2 : 16;
        struct pollfd *set = osb_realloc(poller->set, capacity * sizeof *set);
        if (!set)
            return -1;
        poller->set = set;
        poller->capacity = capacity;
    }
    return 0;
}

int osb_poller_set(osb_poller *poller, int fd, int events, unsigned tag)
{
    struct pollfd *entry;

    if (events == 0) {
        remove_fd(poller, fd);
        return 0;
    }
    if (reserve(poller, fd))
        return -1;
    if (poller->places[fd].position == 0)
        poller->places[fd].position = ++poller->count;
    poller->places[fd].tag = tag;
    entry = &poller->set[poller->places[fd].position - 1];
    entry->fd = fd;
    entry->events = (short)((events & OSB_READABLE ? POLLIN : 0) | (events & OSB_WRITABLE ? POLLOUT : 0));
    entry->revents = 0;
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
        ready[found].tag = poller->places[ready[found].fd].tag;
        ready[found].events = (events & POLLIN ? OSB_READABLE : 0) | (events & POLLOUT ? OSB_WRITABLE : 0)
            | (events & (POLLERR | POLLHUP | POLLNVAL) ? OSB_FAILED : 0);
        ++found;
    }
    return found;
}

#else
typedef int osb_poller_is_not_poll; /* a translation unit must not be empty */
#endif
