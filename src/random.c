#include "random.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>
#if defined(__APPLE__)
#include <sys/random.h>
#endif

/* Where the system call is missing, as in kernels before 3.17. */
static int read_device(void *bytes, size_t length)
{
    int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    ssize_t got;

    if (fd < 0)
        return -1;
    do
        got = read(fd, bytes, length);
    while (got < 0 && errno == EINTR);
    close(fd);
    if (got == (ssize_t)length)
        return 0;
    if (got >= 0)
        errno = EIO;
    return -1;
}

int osb_random(void *bytes, size_t length)
{
#if defined(__linux__) || defined(__APPLE__) || defined(__FreeBSD__) || defined(__OpenBSD__)
    if (getentropy(bytes, length) == 0)
        return 0;
#endif
    return read_device(bytes, length);
}
