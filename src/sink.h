/* The file that receives the body of a good response, straight from libcurl's write callback. It is created when the response begins. */
#ifndef OSB_SINK_H
#define OSB_SINK_H

#include <stddef.h>

typedef struct osb_sink {
    char *path; /* NULL: there is no sink */
    int fd;     /* -1: not open */
    int mode;   /* permission bits of the file; -1: as usual */
    char problem[256];
} osb_sink;

/* All return 0, or -1 with `problem` filled (osb_sink_init: when memory runs out). The file must not exist. */
int osb_sink_init(osb_sink *sink, const char *path, int mode);
int osb_sink_open(osb_sink *sink);
int osb_sink_write(osb_sink *sink, const char *bytes, size_t length);

/* Closes the file. A full disk may be reported only now. */
int osb_sink_close(osb_sink *sink);

/* Closes the file, if it is open, and frees the memory. */
void osb_sink_free(osb_sink *sink);

#endif
