"""What any network is asked for: its outputs, its own penalty, a state without gradients; and a recurrent network."""
