"""The contract of provider.Provider as checks that any backend can run; each name is a claim.

`check_provider` runs them all; a test runner may take them from CHECKS one by one, so that each is a test of its own.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

from vknix.testing.bench import Bench, Process, process
from vknix.testing.container_checks import (
    cancelled_sync_leaves_what_another_completes,
    clean_leaves_nothing_and_absent_is_success,
    cleaned_while_it_waits_for_a_closure_it_is_gone,
    closure_that_nobody_has_is_told_and_nothing_starts,
    container_runs_where_it_was_placed,
    end_says_that_it_was_stopped_to_start_again,
    exit_code_is_told,
    host_restarts_by_the_policy_and_sync_need_not_wait_for_it,
    later_stop_shortens,
    lost_host_is_told_and_listed_again_when_it_is_back,
    next_process_finds_everything_as_it_is,
    program_that_is_not_there_is_a_start_error,
    resources_of_what_runs_change_in_place,
    stop_ends_it_by_the_deadline_and_its_host_lets_it_be,
    stop_ends_the_wait_for_a_restart,
    sync_never_disturbs_what_runs,
    what_begins_again_is_told_with_the_resources_that_it_begins_with,
)
from vknix.testing.placing_checks import (
    adopted_place_is_taken,
    each_host_has_its_own_piece_of_the_pod_cidrs,
    hosts_say_what_they_have,
    places_are_kept_until_released_and_never_shared,
    pod_that_fits_no_host_is_refused_in_the_kubelets_word,
    resize_that_no_host_could_grant_is_infeasible_and_one_that_others_hinder_deferred,
)
from vknix.testing.session_checks import (
    attach_ends_with_the_container,
    attach_types_into_the_main_process_and_shows_what_it_says,
    attach_without_a_running_container_is_not_found,
    cancelled_exec_returns_and_the_container_runs_on,
    exec_runs_in_the_container,
    exec_without_a_running_container_is_not_found,
    following_a_log_ends_with_the_attempt,
    host_answers_and_a_port_that_nobody_listens_on_is_refused,
    input_stays_open_for_the_next_session_without_stdin_once,
    localhost_of_a_pod_is_its_own,
    localhost_of_no_pod_is_not_found,
    log_is_kept_of_each_attempt,
)
from vknix.testing.usage_checks import (
    host_that_is_lost_uses_nothing_that_is_known,
    journal_is_read_by_line_and_unit,
    usage_names_what_runs_and_grows,
)

Check = Callable[[Process], Awaitable[None]]


async def check_provider(make: Callable[[], AbstractAsyncContextManager[Bench]]) -> None:
    """Raises AssertionError, with a note which check it was, at the first that fails."""
    for check in CHECKS:
        async with make() as bench:
            try:
                await run_check(check, bench)
            except BaseException as error:
                error.add_note(f"in check {check.__name__}")
                raise


async def run_check(check: Check, bench: Bench) -> None:
    """One check, in a process of its own. Its plain error where it fails."""
    try:
        async with process(bench) as of:
            await check(of)
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from group


CHECKS: tuple[Check, ...] = (
    hosts_say_what_they_have,
    each_host_has_its_own_piece_of_the_pod_cidrs,
    places_are_kept_until_released_and_never_shared,
    adopted_place_is_taken,
    pod_that_fits_no_host_is_refused_in_the_kubelets_word,
    resize_that_no_host_could_grant_is_infeasible_and_one_that_others_hinder_deferred,
    container_runs_where_it_was_placed,
    sync_never_disturbs_what_runs,
    resources_of_what_runs_change_in_place,
    what_begins_again_is_told_with_the_resources_that_it_begins_with,
    closure_that_nobody_has_is_told_and_nothing_starts,
    cleaned_while_it_waits_for_a_closure_it_is_gone,
    exit_code_is_told,
    program_that_is_not_there_is_a_start_error,
    host_restarts_by_the_policy_and_sync_need_not_wait_for_it,
    stop_ends_it_by_the_deadline_and_its_host_lets_it_be,
    end_says_that_it_was_stopped_to_start_again,
    later_stop_shortens,
    stop_ends_the_wait_for_a_restart,
    clean_leaves_nothing_and_absent_is_success,
    next_process_finds_everything_as_it_is,
    lost_host_is_told_and_listed_again_when_it_is_back,
    cancelled_sync_leaves_what_another_completes,
    exec_runs_in_the_container,
    cancelled_exec_returns_and_the_container_runs_on,
    host_answers_and_a_port_that_nobody_listens_on_is_refused,
    localhost_of_a_pod_is_its_own,
    localhost_of_no_pod_is_not_found,
    exec_without_a_running_container_is_not_found,
    attach_types_into_the_main_process_and_shows_what_it_says,
    input_stays_open_for_the_next_session_without_stdin_once,
    attach_ends_with_the_container,
    attach_without_a_running_container_is_not_found,
    log_is_kept_of_each_attempt,
    following_a_log_ends_with_the_attempt,
    usage_names_what_runs_and_grows,
    host_that_is_lost_uses_nothing_that_is_known,
    journal_is_read_by_line_and_unit,
)
