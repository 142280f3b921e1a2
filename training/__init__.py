"""The spine: config to objects, the step, the loop, the workdir."""
