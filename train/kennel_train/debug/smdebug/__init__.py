"""AWS's smdebug (1.0.34): its hook in our jobs, and the rules on folders that it wrote.

It takes no new versions. `PRIVATE` are the names of its `Hook` that are used though they are private, by `step_hook`; a
test holds that they exist, so that another version fails there and not in a job.
"""

PRIVATE = (
    "_cleanup",
    "_close_writers",
    "_get_collections_to_save_for_step",
    "_get_reduction_of_data",
    "_initialize_writers",
    "_is_tensor_saved_for_step",
    "_make_numpy_array",
    "_prepare_collections",
    "_save_for_tensor",
    "_write_for_tensor",
    "_write_inputs",
    "_write_outputs",
)
