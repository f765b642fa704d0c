#define _GNU_SOURCE /* accept4 */
#include "notifier.h"

#include <errno.h>

#ifdef __linux__

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "alloc.h"
#include "process.h"

struct osb_notifier {
    struct sockaddr_un address;
    int listener;   /* -1 once the connection is accepted */
    int connection; /* the thread writes to it */
    int set;        /* the thread waits for it: the armed descriptor, and `stop` */
    int stop;
    int runs;
    unsigned long process; /* see process.h: a child has no thread */
    pthread_t thread;
};

static void close_one(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void remove_socket_path(osb_notifier *notifier)
{
    char *slash = strrchr(notifier->address.sun_path, '/');

    close_one(&notifier->listener);
    if (!slash)
        return;
    unlink(notifier->address.sun_path);
    *slash = '\0';
    rmdir(notifier->address.sun_path);
    notifier->address.sun_path[0] = '\0';
}

/* Makes the directory and the address in it. */
static int create_socket_path(struct sockaddr_un *address)
{
    const char *parent = getenv("TMPDIR");
    size_t room = sizeof address->sun_path - sizeof "/n";
    int length;

    address->sun_family = AF_UNIX;
    length = snprintf(address->sun_path, room, "%s/opensandbox-XXXXXX", parent && *parent ? parent : "/tmp");
    if (length < 0 || (size_t)length >= room || !mkdtemp(address->sun_path)) {
        if (length >= 0 && (size_t)length >= room)
            errno = ENAMETOOLONG;
        address->sun_path[0] = '\0';
        return -1;
    }
    strcat(address->sun_path, "/n");
    return 0;
}

static int start_listening(osb_notifier *notifier)
{
    if (create_socket_path(&notifier->address))
        return -1;
    notifier->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (notifier->listener < 0)
        return -1;
    if (bind(notifier->listener, (struct sockaddr *)&notifier->address, sizeof notifier->address))
        return -1;
    return listen(notifier->listener, 1);
}

static int add(osb_notifier *notifier, int operation, int fd, unsigned events)
{
    struct epoll_event event = { 0 };

    event.events = events;
    event.data.fd = fd;
    return epoll_ctl(notifier->set, operation, fd, &event);
}

osb_notifier *osb_notifier_new(void)
{
    osb_notifier *notifier = osb_calloc(1, sizeof *notifier);

    if (!notifier)
        return NULL;
    notifier->connection = notifier->listener = -1;
    notifier->process = osb_process();
    notifier->set = epoll_create1(EPOLL_CLOEXEC);
    notifier->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (notifier->set < 0 || notifier->stop < 0 || add(notifier, EPOLL_CTL_ADD, notifier->stop, EPOLLIN) || start_listening(notifier)) {
        int problem = errno;
        osb_notifier_free(notifier);
        errno = problem;
        return NULL;
    }
    return notifier;
}

const char *osb_notifier_path(const osb_notifier *notifier)
{
    return notifier->address.sun_path;
}

static void *watch(void *argument)
{
    osb_notifier *notifier = argument;

    for (;;) {
        struct epoll_event event;
        int count = epoll_wait(notifier->set, &event, 1, -1);
        if (count < 0 && errno != EINTR)
            return NULL;
        if (count < 1)
            continue;
        if (event.data.fd == notifier->stop)
            return NULL;
        /* A full connection holds bytes enough. */
        (void)!send(notifier->connection, "", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
}

/* A child shares the listener and the epoll set with its parent, and has no thread. */
static int refuse_inherited(const osb_notifier *notifier)
{
    if (notifier->process == osb_process())
        return 0;
    errno = EPERM;
    return -1;
}

int osb_notifier_accept(osb_notifier *notifier)
{
    sigset_t all, before;
    int problem;

    if (refuse_inherited(notifier))
        return -1;
    if (notifier->listener < 0) {
        errno = EINVAL;
        return -1;
    }
    notifier->connection = accept4(notifier->listener, NULL, NULL, SOCK_CLOEXEC);
    problem = notifier->connection < 0 ? errno : 0;
    remove_socket_path(notifier);
    if (!problem) {
        sigfillset(&all); /* the host's signals are for the host's threads */
        pthread_sigmask(SIG_SETMASK, &all, &before);
        problem = pthread_create(&notifier->thread, NULL, watch, notifier);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    notifier->runs = !problem;
    errno = problem;
    return problem ? -1 : 0;
}

int osb_notifier_arm(osb_notifier *notifier, int fd)
{
    if (refuse_inherited(notifier))
        return -1;
    if (add(notifier, EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLONESHOT) == 0)
        return 0;
    return errno == ENOENT ? add(notifier, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLONESHOT) : -1;
}

void osb_notifier_free(osb_notifier *notifier)
{
    int is_ours = notifier && notifier->process == osb_process();

    if (!notifier)
        return;
    if (notifier->runs && is_ours) {
        eventfd_write(notifier->stop, 1);
        pthread_join(notifier->thread, NULL);
    }
    if (is_ours)
        remove_socket_path(notifier);
    close_one(&notifier->listener);
    close_one(&notifier->connection);
    close_one(&notifier->set);
    close_one(&notifier->stop);
    osb_free(notifier);
}

#else

osb_notifier *osb_notifier_new(void)
{
    errno = ENOSYS;
    return NULL;
}

const char *osb_notifier_path(const osb_notifier *notifier)
{
    (void)notifier;
    return "";
}

int osb_notifier_accept(osb_notifier *notifier)
{
    (void)notifier;
    errno = ENOSYS;
    return -1;
}

int osb_notifier_arm(osb_notifier *notifier, int fd)
{
    (void)notifier;
    (void)fd;
    errno = ENOSYS;
    return -1;
}

void osb_notifier_free(osb_notifier *notifier)
{
    (void)notifier;
}

#endif
