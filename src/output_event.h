/*
 * The most frequent event: one line of a command's output, as execd's JSON encoder writes it,
 *
 *     {"type":"stdout","text":"...","timestamp":1795469296015}
 *
 * with a text that needs no unescaping. It is read here without a JSON decoder. Every event of another form is left
 * to the decoder.
 */
#ifndef OSB_OUTPUT_EVENT_H
#define OSB_OUTPUT_EVENT_H

#include <stddef.h>

typedef enum osb_output { OSB_OUTPUT_NONE = 0, OSB_OUTPUT_STDOUT, OSB_OUTPUT_STDERR } osb_output;

/* Returns the stream of the line in an event, and sets the position of its text; OSB_OUTPUT_NONE for any other event. */
osb_output osb_output_event(const char *frame, size_t length, const char **text, size_t *text_length);

#endif
