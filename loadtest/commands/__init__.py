"""The commands of the load tester, one file each."""
