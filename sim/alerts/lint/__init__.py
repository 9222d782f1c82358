"""What is wrong with rules before anybody is paged: in their text, their names, and on a healthy past."""
