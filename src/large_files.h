/* Makes files of 2 GiB and more work on 32-bit systems. To be included before anything else. */
#ifndef OSB_LARGE_FILES_H
#define OSB_LARGE_FILES_H

#ifndef _FILE_OFFSET_BITS
#define _FILE_OFFSET_BITS 64
#endif

#include <sys/types.h>

typedef char osb_off_t_has_64_bits[sizeof(off_t) >= 8 ? 1 : -1];

#endif
