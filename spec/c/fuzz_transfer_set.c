/*
 * The set of transfers beside a simple model of it: random operations on a few members, after each of which the set must say what the
 * model says. Run it under the sanitizers.
 *
 *     fuzz-transfer-set [rounds [seed]]
 */
#include "fuzz.h"
#include "transfer_set.h"

enum { MEMBERS = 40, OPERATIONS = 400 };

typedef struct model {
    osb_member member;
    int runs;
    double at; /* of its clock; -1: none */
    unsigned long marked[OSB_MARKS]; /* the number of the operation that marked it; 0: it is not marked */
} model;

static osb_transfer_set set;
static model models[MEMBERS];

static void fail(const char *text)
{
    fprintf(stderr, "%s\n", text);
    abort();
}

/* The model that was marked first, or NULL. */
static model *first_marked(osb_mark mark)
{
    model *first = NULL;
    int i;

    for (i = 0; i < MEMBERS; ++i) {
        if (models[i].marked[mark] && (!first || models[i].marked[mark] < first->marked[mark]))
            first = &models[i];
    }
    return first;
}

static double first_clock(void)
{
    double first = -1;
    int i;

    for (i = 0; i < MEMBERS; ++i) {
        if (models[i].at >= 0 && (first < 0 || models[i].at < first))
            first = models[i].at;
    }
    return first;
}

static void stop(model *one)
{
    int mark;

    osb_transfer_set_remove(&set, &one->member);
    one->runs = 0;
    one->at = -1;
    for (mark = 0; mark < OSB_MARKS; ++mark) {
        if (mark != OSB_CHANGED)
            one->marked[mark] = 0;
    }
}

static void operate(unsigned long number)
{
    model *one = &models[random_number(MEMBERS)];
    osb_mark mark = (osb_mark)random_number(OSB_MARKS);

    switch (random_number(8)) {
    case 0:
    case 1:
        if (!one->runs && osb_transfer_set_add(&set, &one->member))
            abort();
        one->runs = 1;
        break;
    case 2:
        stop(one);
        break;
    case 3:
    case 4:
        one->at = one->runs && random_number(5) ? (double)random_number(100) : -1;
        osb_transfer_set_clock(&set, &one->member, one->at);
        break;
    case 5:
        osb_transfer_set_mark(&set, &one->member, mark);
        if (!one->marked[mark] && (mark == OSB_CHANGED || one->runs))
            one->marked[mark] = number;
        break;
    case 6:
        osb_transfer_set_unmark(&one->member, mark);
        one->marked[mark] = 0;
        break;
    default:
        one = first_marked(mark);
        if (osb_transfer_set_take(&set, mark) != (one ? &one->member : NULL))
            fail("another member was taken");
        if (one)
            one->marked[mark] = 0;
    }
}

static void compare(void)
{
    double clock = first_clock();
    size_t count = 0;
    int i, mark;

    for (i = 0; i < MEMBERS; ++i)
        count += models[i].runs ? 1 : 0;
    if (set.count != count || !osb_transfer_set_first(&set) != (count == 0))
        fail("the number of running members is wrong");
    for (mark = 0; mark < OSB_MARKS; ++mark) {
        if (osb_transfer_set_has(&set, (osb_mark)mark) != (first_marked((osb_mark)mark) != NULL))
            fail("there are marked members, or none, against the model");
    }
    if (osb_transfer_set_next_clock(&set) != clock)
        fail("the earliest clock is another one");
    if (clock >= 0 && (!osb_transfer_set_due(&set, clock) || osb_transfer_set_due(&set, clock)->clock.at != clock))
        fail("the clock that is due is another one");
    if (clock >= 0 && osb_transfer_set_due(&set, clock - 0.5))
        fail("a clock is due too early");
}

int main(int argc, char **argv)
{
    unsigned long rounds = argc > 1 ? strtoul(argv[1], NULL, 10) : 2000;
    unsigned long seed = argc > 2 ? strtoul(argv[2], NULL, 10) : 1;
    unsigned long i, number;
    int k;

    osb_transfer_set_init(&set);
    for (k = 0; k < MEMBERS; ++k) {
        models[k].at = -1;
        osb_transfer_set_enrol(&set, &models[k].member);
    }
    for (i = 0; i < rounds; ++i) {
        random_seed(seed + i);
        for (number = 1; number <= OPERATIONS; ++number) {
            operate(i * OPERATIONS + number);
            compare();
        }
    }
    for (k = 0; k < MEMBERS; ++k)
        stop(&models[k]);
    osb_transfer_set_free(&set);
    printf("%lu rounds of %d operations\n", rounds, (int)OPERATIONS);
    return 0;
}
