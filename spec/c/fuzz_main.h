/*
 * The program around a target, to be included at its end. A target has
 *
 *     static void test(const unsigned char *bytes, size_t length)    tries an input, and aborts when something is wrong
 *     static size_t make(unsigned char *bytes)                        makes a random input of at most LONGEST_STREAM bytes
 *
 * With OSB_LIBFUZZER defined this is a target for libFuzzer: -fsanitize=fuzzer,address,undefined. Otherwise it is a program that tries
 * the inputs of a directory and then random ones:
 *
 *     fuzz-x CORPUS [inputs [seed]]
 */
#ifndef OSB_FUZZ_MAIN_H
#define OSB_FUZZ_MAIN_H

#include "fuzz.h"

#ifdef OSB_LIBFUZZER

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    random_seed((unsigned long)length);
    if (length > 0 && length <= LONGEST_STREAM)
        test(bytes, length);
    return 0;
}

#else

#include <dirent.h>
#include <signal.h>

static const char *current_input = "?";
static unsigned long current_seed;

static void on_abort(int signal_number)
{
    (void)signal_number;
    if (current_input)
        fprintf(stderr, "with the input %s\n", current_input);
    else
        fprintf(stderr, "again with: ... CORPUS 1 %lu\n", current_seed);
}

static void test_file(const char *path)
{
    unsigned char bytes[LONGEST_STREAM];
    FILE *file = fopen(path, "rb");
    size_t length;

    if (!file) {
        perror(path);
        exit(2);
    }
    length = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    current_input = path;
    random_seed((unsigned long)length);
    if (length > 0)
        test(bytes, length);
}

static unsigned long test_corpus(const char *directory)
{
    DIR *listing = opendir(directory);
    struct dirent *entry;
    unsigned long count = 0;
    char path[4096];

    if (!listing) {
        perror(directory);
        exit(2);
    }
    while ((entry = readdir(listing)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", directory, entry->d_name);
        test_file(path);
        ++count;
    }
    closedir(listing);
    return count;
}

int main(int argc, char **argv)
{
    unsigned long inputs = argc > 2 ? strtoul(argv[2], NULL, 10) : 100000;
    unsigned long seed = argc > 3 ? strtoul(argv[3], NULL, 10) : 1;
    unsigned long kept, i;
    unsigned char *bytes = malloc(LONGEST_STREAM);

    if (argc < 2 || !bytes) {
        fprintf(stderr, "usage: %s CORPUS [inputs [seed]]\n", argv[0]);
        return 2;
    }
    signal(SIGABRT, on_abort);
    kept = test_corpus(argv[1]);
    current_input = NULL;
    for (i = 0; i < inputs; ++i) {
        current_seed = seed + i;
        random_seed(current_seed);
        test(bytes, make(bytes));
    }
    free(bytes);
    printf("%s: %lu kept inputs and %lu random ones\n", argv[1], kept, i);
    return 0;
}

#endif
#endif
