/*
 * The event that comes by the hundred thousand: one line of a command's output, as execd's JSON encoder writes it,
 *
 *     {"type":"stdout","text":"...","timestamp":1795469296015}
 *
 * with a text that needs no unescaping. It is read here, without a JSON decoder; whatever does not look exactly like this is not,
 * and goes to one.
 */
#ifndef OSB_OUTPUT_EVENT_H
#define OSB_OUTPUT_EVENT_H

#include <stddef.h>

typedef enum osb_output { OSB_OUTPUT_NONE = 0, OSB_OUTPUT_STDOUT, OSB_OUTPUT_STDERR } osb_output;

/* Which stream the frame is a line of, and where its text stands in it; OSB_OUTPUT_NONE for any other frame. */
osb_output osb_output_event(const char *frame, size_t length, const char **text, size_t *text_length);

#endif
