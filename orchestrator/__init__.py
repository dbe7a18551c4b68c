"""The sweep: from a grid file to jobs, trials, tables and figures."""
