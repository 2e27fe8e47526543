/* remove_tree: a folder that a test made, with all that is in it. */
#ifndef MYSTI_TESTS_REMOVE_TREE_H
#define MYSTI_TESTS_REMOVE_TREE_H

/* Fails the test that calls it when something stays. */
void remove_tree(const char *path);

#endif
