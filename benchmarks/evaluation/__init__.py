"""`make evaluate`: what our learners and the peers earn on routing data, seeing only the outcome of the arm they chose."""
