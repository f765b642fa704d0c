#include "driver.h"

#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "transfer_internal.h"

/* After a fork, the child must neither use nor close the parent's connections. */
static void check_fork(osb_multi *multi)
{
    osb_member *member;

    if (!osb_multi_is_inherited(multi))
        return;
    while ((member = osb_transfer_set_first(&multi->set)) != NULL)
        osb_transfer_drop_after_fork(OSB_TRANSFER(member));
    osb_multi_drop_handles(multi);
}

osb_transfer *osb_driver_request(osb_multi *multi, const osb_request *request)
{
    check_fork(multi);
    return osb_transfer_start(multi, request);
}

/* Returns 1 when a transfer has ended. */
static int resume_paused(osb_multi *multi)
{
    size_t before = multi->set.count;
    osb_member *member;

    while ((member = osb_transfer_set_take(&multi->set, OSB_RESUMABLE)) != NULL)
        osb_transfer_resume(OSB_TRANSFER(member));
    return multi->set.count < before;
}

/* Ends the transfers with a socket that cannot be watched, for example because the system watches too many already. */
static void end_unwatched(osb_multi *multi)
{
    osb_member *member;
    char message[CURL_ERROR_SIZE];

    while ((member = osb_transfer_set_take(&multi->set, OSB_UNWATCHED)) != NULL) {
        snprintf(message, sizeof message, "a socket cannot be watched: %s", strerror(multi->watch_error));
        osb_transfer_end(OSB_TRANSFER(member), OSB_FAILED_OTHERWISE, message);
    }
}

/* Ends the transfers in which libcurl has failed, mostly because memory ran out. The next request begins with a new handle. */
static void end_failed(osb_multi *multi)
{
    osb_member *member = osb_multi_has_failed(multi) ? osb_transfer_set_first(&multi->set) : NULL;

    while (member) {
        osb_transfer *transfer = OSB_TRANSFER(member);
        CURLMcode failure = transfer->shard->failure;
        member = osb_transfer_set_next(&multi->set, member);
        if (failure)
            osb_transfer_end(transfer, failure == CURLM_OUT_OF_MEMORY ? OSB_NO_MEMORY : OSB_FAILED_OTHERWISE, curl_multi_strerror(failure));
    }
    osb_multi_drop_failed(multi);
}

static void collect_completed(osb_multi *multi)
{
    osb_member *member;
    CURLcode code;

    while ((member = osb_multi_next_completed(multi, &code)) != NULL)
        osb_transfer_complete(OSB_TRANSFER(member), code);
}

/* Called after collect_completed(), because libcurl stops waiting for the sockets of completed transfers, too. */
static void check_quiet(osb_multi *multi)
{
    osb_member *member;

    while ((member = osb_transfer_set_take(&multi->set, OSB_QUIET)) != NULL)
        osb_transfer_check_quiet(OSB_TRANSFER(member));
}

static void check_clocks(osb_multi *multi)
{
    osb_member *member;

    while ((member = osb_transfer_set_due(&multi->set, multi->now)) != NULL)
        osb_transfer_check_clock(OSB_TRANSFER(member));
}

void osb_driver_step(osb_multi *multi, double seconds)
{
    double next;

    check_fork(multi);
    if (!multi->poller)
        return;
    multi->now = osb_now();
    if (resume_paused(multi))
        seconds = 0;
    end_unwatched(multi); /* before waiting for a socket that is not watched */
    next = osb_driver_timeout(multi);
    osb_multi_perform(multi, next >= 0 && next < seconds ? next : seconds);
    /* Sockets before clocks: bytes that arrived while the caller was busy must not count as late. */
    collect_completed(multi);
    check_quiet(multi);
    end_unwatched(multi);
    end_failed(multi);
    check_clocks(multi);
}

double osb_driver_timeout(const osb_multi *multi)
{
    double clock = osb_transfer_set_next_clock(&multi->set);
    double next = osb_multi_timer(multi);
    double now;

    if (osb_transfer_set_has(&multi->set, OSB_RESUMABLE))
        return 0;
    if (clock >= 0 && (next < 0 || clock < next))
        next = clock;
    if (next < 0)
        return -1;
    now = osb_now();
    return next > now ? next - now : 0;
}

osb_transfer *osb_driver_next_changed(osb_multi *multi)
{
    osb_member *member = osb_transfer_set_take(&multi->set, OSB_CHANGED);

    return member ? OSB_TRANSFER(member) : NULL;
}

int osb_driver_fd(osb_multi *multi)
{
    check_fork(multi);
    return osb_multi_open(multi) == OSB_RUNNING ? osb_poller_fd(multi->poller) : -1;
}

void osb_driver_close(osb_multi *multi, double seconds)
{
    double deadline = osb_now() + seconds;
    osb_member *member;

    if (multi->closed)
        return;
    check_fork(multi);
    while (multi->set.wait_on_close > 0 && osb_now() < deadline)
        osb_driver_step(multi, deadline - osb_now());
    multi->closed = 1;
    /* The oldest first: libcurl finds a connection faster the older it is. */
    while ((member = osb_transfer_set_first(&multi->set)) != NULL)
        osb_transfer_end(OSB_TRANSFER(member), OSB_CLOSED, NULL);
    osb_multi_drop_handles(multi);
}
