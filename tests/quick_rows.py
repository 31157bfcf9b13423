"""The slow tests of which `make test` runs some parameter sets, and `make test-long` the others."""

from collections import defaultdict

import pytest

QUICK_ROWS: dict[str, int] = {
    "experiments/test_accumulation.py::test_it_is_the_step_of_the_whole_batch_for_every_method": 2,
    "experiments/test_accumulation.py::test_one_set_of_executables_serves_every_stage_of_a_plan": 1,
    "experiments/test_accumulation.py::test_so_it_is_with_what_stands_around_a_method": 1,
    "experiments/test_adaptive.py::test_it_goes_on_bit_for_bit_within_an_epoch_at_its_end_and_behind_a_growth": 1,
    "experiments/test_adaptive.py::test_so_it_does_from_a_save_at_the_moment_of_growth_and_when_killed_at_its_end": 0,
    "experiments/test_adaptive.py::test_the_plan_that_came_out_replays_the_run_bit_for_bit": 1,
    "experiments/test_adaptive_ends.py::test_nothing_is_saved_behind_the_last_update_which_is_not_known_beforehand": 0,
    "experiments/test_benchmark_costs.py::test_a_plan_is_traced_anew_and_goes_through_its_stages": 0,
    "experiments/test_call_stack.py::test_few_files_of_the_program_lie_between_the_command_and_the_loss": 1,
    "experiments/test_collectives.py::test_a_perturbation_a_device_or_for_its_own_examples_moves_them_once_in_all": 1,
    "experiments/test_convergence_bound.py::test_the_bound_holds_and_is_not_vacuous": 3,
    "experiments/test_data.py::test_a_transform_sees_every_image_with_the_key_of_its_seed_and_position": 1,
    "experiments/test_earlier_checkpoints.py::test_a_run_that_was_stopped_goes_on": 1,
    "experiments/test_earlier_checkpoints.py::test_a_state_is_read_and_what_it_lacks_was_not_measured": 8,
    "experiments/test_full_disk.py::test_a_disk_that_is_full_is_told_and_what_was_saved_is_there": 2,
    "experiments/test_fuzz.py::test_a_config_trains_or_is_refused": 0,
    "experiments/test_fuzz.py::test_stopped_wherever_and_saved_whenever_it_is_the_same_run": 0,
    "experiments/test_large_report.py::test_pictures_are_small_and_lie_beside_the_document": 0,
    "experiments/test_large_report.py::test_the_document_is_short_and_has_a_table_a_match": 0,
    "experiments/test_load_torch.py::test_names_of_the_networks_of_the_paper": 1,
    "experiments/test_load_torch.py::test_the_logits_are_those_of_the_original": 1,
    "experiments/test_loss_and_update.py::test_both_passes_share_one_trace_of_the_network": 2,
    "experiments/test_loss_and_update.py::test_shards_give_the_mean_of_what_each_would_give_alone": 0,
    "experiments/test_loss_and_update.py::test_shards_of_a_growing_batch_train": 0,
    "experiments/test_many_devices.py::test_a_perturbation_a_device_is_one_for_as_many_examples_as_it_has": 0,
    "experiments/test_many_devices.py::test_a_perturbation_for_m_examples_does_not_depend_on_the_devices": 0,
    "experiments/test_many_devices.py::test_a_stopped_run_goes_on_on_another_number_of_devices": 0,
    "experiments/test_many_devices.py::test_an_evaluation_is_that_of_one_device": 1,
    "experiments/test_many_devices.py::test_eight_devices_train_every_method_as_one_does": 1,
    "experiments/test_many_devices.py::test_on_one_device_that_is_the_global_one": 0,
    "experiments/test_many_devices.py::test_the_state_stays_where_it_lies_so_that_a_step_is_compiled_once": 1,
    "experiments/test_matches.py::test_the_papers_constant_among_the_controls_of_the_papers_plan": 3,
    "experiments/test_methods.py::test_a_radius_of_zero_is_the_base": 2,
    "experiments/test_methods.py::test_a_report_of_methods_that_have_nothing_in_common_compares_what_it_can": 0,
    "experiments/test_methods.py::test_every_method_trains_on_the_digits": 4,
    "experiments/test_methods.py::test_second_passes_are_made_when_they_should": 1,
    "experiments/test_methods.py::test_the_comparison_runs_all_methods_and_tells_them_in_a_table": 0,
    "experiments/test_models.py::test_the_networks_are_as_large_as_the_papers": 2,
    "experiments/test_nonfinite.py::test_a_run_that_stops_there_compiles_each_step_once": 0,
    "experiments/test_nonfinite.py::test_a_step_that_is_not_finite_changes_nothing_at_all": 1,
    "experiments/test_nonfinite.py::test_what_is_skipped_is_counted_and_told": 1,
    "experiments/test_precision.py::test_every_method_takes_the_step_of_float32_to_rounding_and_keeps_float32": 1,
    "experiments/test_precision.py::test_every_product_of_a_network_is_made_in_bfloat16_of_what_is_kept_in_float32": 1,
    "experiments/test_presets.py::test_a_row_trains_three_steps_on_images_of_its_shape": 0,
    "experiments/test_refusals.py::test_a_damaged_save_is_named_with_what_can_be_done": 2,
    "experiments/test_resume.py::test_killed_it_goes_on_from_its_last_save": 1,
    "experiments/test_resume.py::test_stopped_and_gone_on_it_is_the_same_run": 2,
    "experiments/test_run.py::test_a_growing_plan_takes_its_updates_at_the_rates_of_its_schedule": 1,
    "experiments/test_run.py::test_small_resnet_learns_the_digits": 0,
    "experiments/test_soak.py::test_memory_is_flat_from_a_tenth_of_a_run_to_its_end": 0,
    "experiments/test_stochastic_depth.py::test_a_run_goes_on_bit_for_bit_from_its_checkpoint": 0,
    "experiments/test_writers.py::test_a_run_that_goes_on_has_every_point_once": 1,
    "sharpness/test_ascent.py::test_every_iterate_is_that_of_the_rules": 1,
    "sharpness/test_eigenvalues.py::test_more_steps_come_nearer_from_inside": 0,
    "sharpness/test_eigenvalues.py::test_where_the_krylov_space_ends_early_all_is_right": 1,
    "sharpness/test_invariance.py::test_in_units_of_the_weights_nothing_changes": 1,
    "sharpness/test_mask.py::test_it_is_the_measure_of_the_weights_with_the_state_closed_over": 1,
    "sharpness/test_mask.py::test_without_the_mask_the_statistics_count": 1,
    "sharpness/test_published.py::test_in_the_adaptive_ball_ours_finds_more": 0,
    "sharpness/test_published.py::test_without_halvings_the_values_are_equal": 1,
    "sharpness/test_worst_case.py::test_on_a_network_of_two_parameters_a_fine_grid_agrees": 1,
    "test_common_promises.py::test_a_pair_follows_its_base_is_traced_once_and_reaches_the_targets": 8,
    "test_common_promises.py::test_three_steps_are_those_of_the_base_on_the_methods_gradient": 10,
    "test_devices.py::test_a_traced_policy_decides_under_shard_map": 1,
    "test_devices.py::test_it_stands_behind_a_method_in_a_chain": 2,
    "test_devices.py::test_one_perturbation_a_device_is_what_its_definition_says": 2,
    "test_devices.py::test_shards_are_gone_through_by_either_loop_under_shard_map": 1,
    "test_devices.py::test_the_global_perturbation_is_that_of_the_whole_batch": 3,
    "test_explicit_mesh.py::test_m_sharpness_is_that_of_one_device": 0,
    "test_explicit_mesh.py::test_the_shards_of_m_sam_are_those_of_one_device": 1,
    "test_explicit_mesh.py::test_weights_and_states_work_on_an_explicit_mesh": 1,
    "test_extreme_gradients.py::test_the_derivative_of_an_update_at_a_zero_gradient_is_finite": 3,
    "test_flax.py::test_rngs_and_metrics_among_the_arguments_move_once_a_step": 1,
    "test_flax.py::test_statistics_and_dropout_counts_are_those_of_the_clean_passes_alone": 1,
    "test_flax_options.py::test_the_state_goes_from_part_to_part_in_both_passes": 1,
    "test_formulas.py::test_eight_steps_with_momentum_follow_the_formula": 6,
    "test_framework_states.py::test_counters_and_statistics_are_those_of_the_clean_passes_over_the_parts": 2,
    "test_frameworks.py::test_a_step_of_equinox_is_that_of_two_gradients": 1,
    "test_frameworks.py::test_a_step_of_haiku_is_that_of_two_gradients": 1,
    "test_frozen_parameters.py::test_frozen_parameters_stay_where_they_are": 5,
    "test_golden.py::test_the_trajectory_of_several_ascent_steps_is_that_of_optax": 2,
    "test_growth_and_decay.py::test_decay_is_growth_the_way_back": 4,
    "test_growth_and_decay.py::test_the_ratio_of_rate_and_batch_is_kept_at_every_position": 4,
    "test_lookahead_and_flatten.py::test_a_flattened_base_behind_a_method_is_that_base": 2,
    "test_m_sam.py::test_a_static_decision_reaches_the_method": 2,
    "test_m_sam.py::test_at_a_fixed_m_the_number_of_devices_changes_nothing": 1,
    "test_m_sam.py::test_it_is_the_mean_of_the_method_over_the_shards": 2,
    "test_masks.py::test_asam_scales_every_leaf_but_the_biases": 1,
    "test_masks.py::test_paths_are_the_names_that_the_framework_gives": 1,
    "test_micro_batches.py::test_a_step_in_parts_is_the_step_of_the_whole_batch": 3,
    "test_micro_batches.py::test_the_wrappers_go_through_parts_alike": 2,
    "test_msam_partitions.py::test_the_head_alone_is_trained_as_if_there_were_nothing_else": 6,
    "test_noise_tracking.py::test_a_skipped_step_measures_the_clean_gradient_alone": 1,
    "test_noise_tracking.py::test_the_method_goes_on_unchanged": 1,
    "test_noise_tracking.py::test_the_noise_is_accumulated_in_float32_whatever_the_parameters": 1,
    "test_nonfinite.py::test_a_step_with_a_bad_pass_is_as_if_it_had_not_been": 5,
    "test_perturbed_loss.py::test_devices_with_a_perturbation_each_report_the_mean": 0,
    "test_perturbed_loss.py::test_they_are_the_losses_at_the_parameters_of_the_second_pass": 6,
    "test_phases.py::test_a_perturbation_of_each_device_is_not_averaged": 0,
    "test_phases.py::test_compiled_they_are_the_same_to_rounding": 1,
    "test_phases.py::test_two_phases_are_the_one_call_exactly": 8,
    "test_phases.py::test_whole_chains_have_two_phases": 1,
    "test_precision.py::test_parameters_and_states_keep_their_types": 7,
    "test_promises.py::test_a_checkpoint_goes_on_as_if_nothing_had_happened": 4,
    "test_promises.py::test_a_step_is_traced_once_a_shape_and_a_decision": 3,
    "test_promises.py::test_a_zero_gradient_after_others_gives_a_finite_update": 10,
    "test_promises.py::test_every_update_advances_the_count": 8,
    "test_promises.py::test_no_two_leaves_of_a_state_share_a_buffer_so_that_it_can_be_donated": 12,
    "test_promises.py::test_the_traced_decision_is_the_plain_one": 3,
    "test_pytrees.py::test_every_tree_is_trained_and_comes_back_as_it_was": 1,
    "test_repeated_ascent.py::test_it_is_optax_sam_with_the_same_adversary": 2,
    "test_transformations_of_a_step.py::test_a_map_over_seeds_is_the_loop_over_them": 2,
    "test_transformations_of_a_step.py::test_a_scan_over_batches_is_the_loop_over_them": 2,
    "test_transformations_of_a_step.py::test_an_exported_step_makes_the_same_step": 2,
    "test_transformations_of_a_step.py::test_the_gradient_through_two_steps_is_that_of_finite_differences": 1,
}
"""The number of parameter sets that `make test` runs, by file and test; 0 leaves the test to `make test-long`."""


def mark_other_rows(items: list[pytest.Item]) -> None:
    """Marks the other parameter sets of these tests as long. The quick ones are spread over the list of all."""
    rows: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        name = item.nodeid.partition("[")[0].removeprefix("tests/")
        if name in QUICK_ROWS and item.get_closest_marker("long") is None:
            rows[name].append(item)
    for name, found in rows.items():
        quick = spread(len(found), QUICK_ROWS[name])
        for number, item in enumerate(found):
            if number not in quick:
                item.add_marker(pytest.mark.long)


def spread(count: int, quick: int) -> set[int]:
    """`quick` numbers below `count`, from the first to the last."""
    if quick >= count:
        return set(range(count))
    return {i * (count - 1) // max(quick - 1, 1) for i in range(quick)}
