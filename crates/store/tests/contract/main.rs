//! What every store must do, whatever it is made of. A backend implements [`fixture::Backend`] and is listed at
//! the end; each function of the modules is one clause of the contract.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail loudly")]

mod claims;
mod fixture;
#[path = "../servers/ports.rs"]
mod ports;
#[path = "../servers/cluster.rs"]
mod redis_cluster;
mod rows;
#[path = "../servers/mod.rs"]
mod servers;
mod together;
mod upkeep;

/// Runs every clause against one backend.
macro_rules! contract {
    ($name:ident, $backend:expr; $($module:ident::$clause:ident,)*) => {
        mod $name {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $clause() {
                    crate::$module::$clause(crate::fixture::World::new($backend)).await;
                }
            )*
        }
    };
}

macro_rules! every_backend {
    ($($clauses:tt)*) => {
        contract!(embedded, crate::fixture::InTempDir::new(); $($clauses)*);
        contract!(redis, crate::fixture::OnRedis::single(); $($clauses)*);
        contract!(cluster, crate::fixture::OnRedis::clustered(); $($clauses)*);
    };
}

every_backend! {
    claims::every_answer_is_given_and_survives_a_restart,
    claims::a_row_that_is_not_there_is_over_and_shows_no_limits,
    claims::uncounted_needs_no_use,
    claims::paused_and_removed_are_over_but_the_delivered_is_known,
    claims::asking_again_under_one_attempt_gets_the_same_answer,
    claims::a_claim_of_a_dead_boot_goes_again,
    claims::attempts_that_delivered_nothing_are_not_counted,
    claims::a_message_that_was_in_doubt_too_often_is_refused,
    claims::a_death_is_a_doubt,
    claims::a_batch_is_answered_in_order,
    claims::refused_gives_back_only_what_is_clean,
    claims::settling_twice_or_stale_or_unknown_changes_nothing,
    claims::a_late_delivery_settles_what_was_lost,
    claims::acknowledged_is_forgotten_at_once,
    claims::kept_claims_end_without_touching_the_counter,
    claims::a_message_without_an_id_is_never_already_there,
    claims::only_the_stores_clock_decides,
    rows::what_was_made_is_found_under_any_key_asked_for,
    rows::a_taken_key_clashes_and_changes_nothing,
    rows::limits_and_pauses_change,
    rows::two_changes_at_the_same_time_both_hold,
    rows::what_has_ended_stays_ended,
    rows::removal_wipes_and_is_for_ever,
    rows::freeing_gives_back_what_nobody_sends,
    rows::freeing_leaves_alone_what_is_in_flight,
    rows::a_change_of_nothing_is_nothing,
    rows::pages_cover_every_row_once,
    rows::a_retried_request_makes_one_row,
    upkeep::a_bucket_refuses_and_fills_again_over_restarts,
    upkeep::a_clock_that_was_ahead_locks_nobody_out,
    upkeep::sweeping_takes_what_is_over_and_nothing_else,
    upkeep::sweeping_takes_many_steps,
    upkeep::sweeping_claims_leaves_the_counter,
    upkeep::a_healthy_store_says_so,
    together::n_uses_are_granted_n_times_under_contention,
    together::a_rate_holds_under_contention,
    together::one_name_makes_one_row_under_contention,
}
