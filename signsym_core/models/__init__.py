"""What any network is asked for here: outputs, its own penalty, a state without gradients."""
