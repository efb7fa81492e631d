-- name: stored_event
/* whole_event */
