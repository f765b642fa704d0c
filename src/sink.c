#include "large_files.h"

#include "sink.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "alloc.h"

static int fail(osb_sink *sink)
{
    snprintf(sink->problem, sizeof sink->problem, "%s", strerror(errno));
    return -1;
}

int osb_sink_init(osb_sink *sink, const char *path, int mode)
{
    sink->fd = -1;
    sink->mode = mode;
    if (!path)
        return 0;
    sink->path = osb_strdup(path);
    return sink->path ? 0 : -1;
}

int osb_sink_open(osb_sink *sink)
{
    sink->fd = open(sink->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, sink->mode >= 0 ? 0600 : 0666);
    if (sink->fd < 0 || (sink->mode >= 0 && fchmod(sink->fd, (mode_t)sink->mode)))
        return fail(sink);
    return 0;
}

int osb_sink_write(osb_sink *sink, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t written = write(sink->fd, bytes, length);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return fail(sink);
        bytes += written;
        length -= (size_t)written;
    }
    return 0;
}

int osb_sink_close(osb_sink *sink)
{
    int fd = sink->fd;

    sink->fd = -1;
    return fd >= 0 && close(fd) && errno != EINTR ? fail(sink) : 0;
}

void osb_sink_free(osb_sink *sink)
{
    osb_sink_close(sink);
    osb_free(sink->path);
    sink->path = NULL;
}
