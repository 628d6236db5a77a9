"""Learning-rate schedules, one file each: functions of the step, without a state to save."""
