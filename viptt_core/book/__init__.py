"""How the book is made: notebooks executed, pictures drawn, pages completed."""
