/* list.h - a doubly linked list whose links live inside its members.
 *
 * The list owns nothing.  A link that is in no list points to itself, so that
 * list_remove() is harmless when repeated.  One thread. */
#ifndef HOST_BASE_LIST_H
#define HOST_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list {
	struct list *next, *prev;
};

/* The struct of `type` whose member `member` is at p. */
#define LIST_ENTRY(p, type, member) ((type *)(void *)((char *)(p)-offsetof(type, member)))

static inline void
list_init(struct list *l)
{
	l->next = l->prev = l;
}

static inline bool
list_empty(const struct list *l)
{
	return l->next == l;
}

static inline void
list_append(struct list *head, struct list *item)
{
	item->prev = head->prev;
	item->next = head;
	head->prev->next = item;
	head->prev = item;
}

static inline void
list_prepend(struct list *head, struct list *item)
{
	list_append(head->next, item);
}

static inline void
list_remove(struct list *item)
{
	item->prev->next = item->next;
	item->next->prev = item->prev;
	list_init(item);
}

/* Moves all members of `from` into the empty list `to`, in order. */
static inline void
list_take(struct list *to, struct list *from)
{
	list_init(to);
	if (list_empty(from))
		return;
	*to = *from;
	to->next->prev = to->prev->next = to;
	list_init(from);
}

#endif
