#include "transfer_set.h"

void osb_transfer_set_init(osb_transfer_set *set)
{
    int i;

    osb_list_init(&set->running);
    for (i = 0; i < OSB_MARKS; ++i)
        osb_list_init(&set->marks[i]);
}

void osb_transfer_set_free(osb_transfer_set *set)
{
    osb_clock_heap_free(&set->clocks);
}

void osb_transfer_set_enrol(osb_transfer_set *set, osb_member *member)
{
    member->id = ++set->last_id;
    member->socket = -1;
}

static int runs(const osb_member *member)
{
    return osb_list_holds(&member->running);
}

int osb_transfer_set_add(osb_transfer_set *set, osb_member *member)
{
    if (osb_clock_heap_reserve(&set->clocks, set->count + 1))
        return -1;
    osb_list_add(&set->running, &member->running);
    ++set->count;
    return 0;
}

void osb_transfer_set_remove(osb_transfer_set *set, osb_member *member)
{
    if (!runs(member))
        return;
    osb_list_remove(&member->running);
    osb_list_remove(&member->marks[OSB_RESUMABLE]);
    osb_list_remove(&member->marks[OSB_UNWATCHED]);
    osb_list_remove(&member->marks[OSB_QUIET]);
    osb_clock_remove(&set->clocks, &member->clock);
    --set->count;
    if (member->wait_on_close)
        --set->wait_on_close;
}

void osb_transfer_set_detach(osb_transfer_set *set, osb_member *member, int wait_on_close)
{
    osb_list_remove(&member->marks[OSB_CHANGED]);
    member->detached = 1;
    member->wait_on_close = wait_on_close;
    if (wait_on_close)
        ++set->wait_on_close;
}

osb_member *osb_transfer_set_first(const osb_transfer_set *set)
{
    osb_node *first = osb_list_first(&set->running);

    return first ? OSB_ELEMENT(first, osb_member, running) : NULL;
}

osb_member *osb_transfer_set_next(const osb_transfer_set *set, const osb_member *member)
{
    osb_node *next = member->running.next;

    return next == &set->running ? NULL : OSB_ELEMENT(next, osb_member, running);
}

void osb_transfer_set_mark(osb_transfer_set *set, osb_member *member, osb_mark mark)
{
    if (mark == OSB_CHANGED ? !member->detached : runs(member))
        osb_list_add(&set->marks[mark], &member->marks[mark]);
}

void osb_transfer_set_unmark(osb_member *member, osb_mark mark)
{
    osb_list_remove(&member->marks[mark]);
}

osb_member *osb_transfer_set_take(osb_transfer_set *set, osb_mark mark)
{
    osb_node *first = osb_list_first(&set->marks[mark]);

    if (!first)
        return NULL;
    osb_list_remove(first);
    return OSB_ELEMENT(first - mark, osb_member, marks);
}

int osb_transfer_set_has(const osb_transfer_set *set, osb_mark mark)
{
    return osb_list_first(&set->marks[mark]) != NULL;
}

void osb_transfer_set_clock(osb_transfer_set *set, osb_member *member, double at)
{
    if (at < 0 || !runs(member))
        osb_clock_remove(&set->clocks, &member->clock);
    else
        osb_clock_set(&set->clocks, &member->clock, at);
}

double osb_transfer_set_next_clock(const osb_transfer_set *set)
{
    const osb_clock *clock = osb_clock_first(&set->clocks);

    return clock ? clock->at : -1;
}

osb_member *osb_transfer_set_due(const osb_transfer_set *set, double now)
{
    osb_clock *clock = osb_clock_first(&set->clocks);

    return clock && clock->at <= now ? OSB_ELEMENT(clock, osb_member, clock) : NULL;
}
