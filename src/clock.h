/* Time: seconds on the monotonic clock, as a double, everywhere in the core. */
#ifndef OSB_CLOCK_H
#define OSB_CLOCK_H

#include <time.h>

static inline double osb_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* For the calls that take milliseconds. Rounded up: a wait that ends early makes its caller spin until the deadline. */
static inline int osb_milliseconds(double seconds)
{
    const int longest = 86400 * 1000;
    double milliseconds = seconds * 1000;
    int whole;

    if (!(milliseconds > 0))
        return 0;
    if (milliseconds >= longest)
        return longest;
    whole = (int)milliseconds;
    return whole < milliseconds ? whole + 1 : whole;
}

#endif
