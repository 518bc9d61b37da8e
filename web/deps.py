"""What a route may ask for: the lab, a session that only reads, the page renderer, the count of open streams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, cast

from fastapi import Depends, Request
from sqlalchemy.orm import Session

from lab.context import Lab
from lab.flights.recipe import Recipe
from web.pages import Pages
from web.streams import Streams


def get_lab(request: Request) -> Lab:
    """The installation this application shows."""
    return cast(Lab, request.app.state.lab)


LabDep = Annotated[Lab, Depends(get_lab)]


def get_session(lab: LabDep) -> Iterator[Session]:
    """One session for reading, closed after the response was made."""
    with lab.reads() as session:
        yield session


def get_recipes(request: Request) -> Mapping[str, Recipe]:
    """The recipes that are known here, to show the steps that are still to come."""
    return cast(Mapping[str, Recipe], request.app.state.recipes)


def get_pages(request: Request) -> Pages:
    """Renders templates."""
    return cast(Pages, request.app.state.pages)


def get_streams(request: Request) -> Streams:
    """Counts open streams."""
    return cast(Streams, request.app.state.streams)


SessionDep = Annotated[Session, Depends(get_session)]
RecipesDep = Annotated[Mapping[str, Recipe], Depends(get_recipes)]
PagesDep = Annotated[Pages, Depends(get_pages)]
StreamsDep = Annotated[Streams, Depends(get_streams)]
