/*
 * The notifier, whose thread shares its descriptors with the host's, under ThreadSanitizer: armed again and again while bytes arrive,
 * by several hosts at the same time, and closed at any moment.
 *
 *     race-notifier [rounds]
 */
#include "notifier.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { HOSTS = 4, NOTICES = 50 };

static void fail(const char *text)
{
    perror(text);
    abort();
}

static int connect_to(const char *path)
{
    struct sockaddr_un address;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    memset(&address, 0, sizeof address);
    address.sun_family = AF_UNIX;
    strcpy(address.sun_path, path);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address))
        fail("connect");
    return fd;
}

/* One host: a notifier, and a descriptor that becomes readable many times. */
static void run_host(int round)
{
    osb_notifier *notifier = osb_notifier_new();
    int watched[2], fd, i;
    char byte;

    if (!notifier || pipe(watched))
        fail("notifier");
    fd = connect_to(osb_notifier_path(notifier));
    if (osb_notifier_accept(notifier))
        fail("accept");
    for (i = 0; i < NOTICES; ++i) {
        /* The descriptor is readable before it is armed, or becomes so afterwards. */
        if (i % 2 == 0 && write(watched[1], "x", 1) != 1)
            fail("write");
        if (osb_notifier_arm(notifier, watched[0]))
            fail("arm");
        if (i % 2 == 1 && write(watched[1], "x", 1) != 1)
            fail("write");
        if (read(fd, &byte, 1) != 1)
            fail("no notice");
        if (read(watched[0], &byte, 1) != 1)
            fail("read");
    }
    /* Closed while it is quiet, while it is armed, or while a notice is on the way. */
    if (round % 3 > 0 && osb_notifier_arm(notifier, watched[0]))
        fail("arm");
    if (round % 3 > 1 && write(watched[1], "x", 1) != 1)
        fail("write");
    osb_notifier_free(notifier);
    close(fd);
    close(watched[0]);
    close(watched[1]);
}

static int rounds = 40;

static void *run_hosts(void *unused)
{
    int round;

    (void)unused;
    for (round = 0; round < rounds; ++round)
        run_host(round);
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t hosts[HOSTS];
    int i;

    if (argc > 1)
        rounds = atoi(argv[1]);
    for (i = 0; i < HOSTS; ++i) {
        if (pthread_create(&hosts[i], NULL, run_hosts, NULL))
            fail("pthread_create");
    }
    for (i = 0; i < HOSTS; ++i)
        pthread_join(hosts[i], NULL);
    printf("%d hosts, %d rounds of %d notices each\n", (int)HOSTS, rounds, (int)NOTICES);
    return 0;
}
