/*
 * A doubly linked list that runs through its elements: each holds a node, and the list is a node too. Adding and removing take
 * constant time and no memory. An element in no list has a zeroed node.
 */
#ifndef OSB_LIST_H
#define OSB_LIST_H

#include <stddef.h>

typedef struct osb_node {
    struct osb_node *previous, *next;
} osb_node;

/* The element that holds `node` as its field `field`. */
#define OSB_ELEMENT(node, type, field) ((type *)(void *)((char *)(node) - offsetof(type, field)))

static inline void osb_list_init(osb_node *list)
{
    list->previous = list->next = list;
}

static inline int osb_list_holds(const osb_node *node)
{
    return node->next != NULL;
}

/* Returns the first node, or NULL when the list is empty. */
static inline osb_node *osb_list_first(const osb_node *list)
{
    return list->next == list ? NULL : list->next;
}

/* Adds a node at the end, unless it is in a list already. */
static inline void osb_list_add(osb_node *list, osb_node *node)
{
    if (osb_list_holds(node))
        return;
    node->previous = list->previous;
    node->next = list;
    list->previous->next = node;
    list->previous = node;
}

/* Moves a node to the beginning, from wherever it is. */
static inline void osb_list_move_first(osb_node *list, osb_node *node)
{
    if (osb_list_holds(node)) {
        node->previous->next = node->next;
        node->next->previous = node->previous;
    }
    node->previous = list;
    node->next = list->next;
    list->next->previous = node;
    list->next = node;
}

/* Removes a node, if it is in a list. */
static inline void osb_list_remove(osb_node *node)
{
    if (!osb_list_holds(node))
        return;
    node->previous->next = node->next;
    node->next->previous = node->previous;
    node->previous = node->next = NULL;
}

#endif
