"""The mediator: a small process of ours that speaks a program's protocol for one turn, inside the session.

Programs that ask over a protocol want somebody at the other end of their standard input for as long as they live. That
is never the supervisor, which may die at any moment: the shim starts the mediator, which starts the program, has it
do the prompt, and puts what it asks into the session's mailbox. Nothing but the standard library.
"""
