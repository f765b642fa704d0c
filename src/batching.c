#include "batching.h"

#include <time.h>

#include "clock.h"

enum {
    MIN_ROW = 16,         /* reads, before the first wait */
    MAX_ROW = 31,         /* so that a pause halves it to less than that, and the next quick read continues it */
    FEW_BYTES = 48 * 1024 /* of one read. One that fills the buffer of libcurl needs no batching */
};

#define AT_ONCE 200e-6 /* seconds between two reads of a stream in quick succession */

void osb_batching_received(osb_batching *batching, size_t length)
{
    batching->received += length;
}

void osb_batching_sent(osb_batching *batching)
{
    batching->row = 0;
}

int osb_batching_wait(osb_batching *batching, double now)
{
    const struct timespec wait = { 0, (long)(OSB_BATCHING_WAIT * 1e9) };
    int is_quick = batching->received > 0 && now - batching->read_at < AT_ONCE;
    int is_small = batching->received < FEW_BYTES;

    if (!is_quick)
        batching->row /= 2;
    else if (is_small && batching->row < MAX_ROW)
        ++batching->row;
    batching->received = 0;
    if (batching->row < MIN_ROW || !is_small)
        return 0;
    nanosleep(&wait, NULL); /* a signal ends it early, which does no harm */
    return 1;
}

void osb_batching_read(osb_batching *batching, double now)
{
    batching->read_at = now;
}
