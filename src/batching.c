#include "batching.h"

#include <time.h>

#include "clock.h"

enum {
    MIN_ROW = 16,     /* reads, before the first wait */
    FEW_BYTES = 16384 /* of one read. One that fills the buffer of libcurl needs no batching */
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
    int is_thick = batching->received > 0 && batching->received < FEW_BYTES && now - batching->read_at < AT_ONCE;

    batching->row = is_thick ? batching->row + 1 : 0;
    batching->received = 0;
    if (batching->row < MIN_ROW)
        return 0;
    nanosleep(&wait, NULL); /* a signal ends it early, which does no harm */
    return 1;
}

void osb_batching_read(osb_batching *batching, double now)
{
    batching->read_at = now;
}
