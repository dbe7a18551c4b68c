"""What each member of a family has to do; `signsym_core.testing` calls these checks."""
